"""A disk or database that is full for now: callers are told, work without a caller waits."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from raglan.database import Database, DatabaseUnavailable, PatientDatabase, url_of
from raglan.errors import StorageFull
from raglan_ingester.blobs import BlobStore, BlobWriter
from raglan_ingester.model import Worker
from raglan_ingester.schema import SCHEMA
from sqlalchemy.orm import Session


def _add(session: Session) -> None:
    session.add(Worker(name="x" * 200_000, beats=1))


async def test_a_full_database_is_unavailable_and_patient_work_goes_on_later(
    tmp_path: Path,
) -> None:
    database = Database(url_of("", tmp_path / "ingester.sqlite"), SCHEMA)
    pages = 40

    def limit(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    await database.create()
    sa.event.listen(database.engine, "connect", limit)
    database.engine.dispose()  # the limit is one of connections

    with pytest.raises(DatabaseUnavailable, match="cannot write"):
        await database.run(_add)
    waiting = asyncio.create_task(PatientDatabase(database).run(_add))
    await asyncio.wait((waiting,), timeout=0.3)
    assert not waiting.done()
    pages = 10_000
    database.engine.dispose()
    async with asyncio.timeout(30):
        await waiting

    await database.close()


async def test_an_upload_onto_a_full_disk_is_refused_with_a_sentence(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    store.open("local")
    received = tmp_path / "received"
    received.symlink_to("/dev/full")
    writer = BlobWriter(store, received, store._disk)

    with pytest.raises(StorageFull, match="RAGLAN_INGESTER_DATA_DIR"):
        await writer.write(b"x" * 1_000_000)
    await writer.discard()

    assert not received.is_symlink()


async def test_an_upload_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    more_than_there_is = shutil.disk_usage(tmp_path).total // 1_000_000 + 1
    store = BlobStore(tmp_path / "blobs", min_free_mb=more_than_there_is)
    store.open("local")

    with pytest.raises(StorageFull, match="MB free; .*RAGLAN_INGESTER_MIN_FREE_MB"):
        await store.writer().write(b"x")
