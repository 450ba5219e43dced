"""Names of collections have room for the tenant before them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TABLES = ("jobs", "documents", "document_structures", "index_revisions", "unfinished_deletions")
_NAME = sa.String(128)


def upgrade() -> None:
    """Widen the columns; SQLite has no limit to widen."""
    if op.get_context().dialect.name == "sqlite":
        return
    for table in _TABLES:
        op.alter_column(table, "collection", type_=_NAME)
