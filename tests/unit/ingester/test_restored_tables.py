"""What a restore that replaces everything does with each table."""

from __future__ import annotations

from raglan_ingester.backup.importing import FORGOTTEN, KEPT
from raglan_ingester.model import (
    Base,
    ChunkContext,
    Document,
    DocumentStructure,
    EarlierVersion,
)


def test_every_table_is_emptied_or_kept_by_a_restore_that_replaces() -> None:
    deleted_one_by_one = (Document, DocumentStructure, EarlierVersion, ChunkContext)
    tables = (*FORGOTTEN, *KEPT, *deleted_one_by_one)
    assert sorted(str(table.__tablename__) for table in tables) == sorted(Base.metadata.tables)
