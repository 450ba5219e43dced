"""Access tags, edits of metadata, and jobs that change documents by a filter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns and the table. Documents stay open to every caller."""
    op.add_column("jobs", sa.Column("kind", sa.String(16), nullable=False, server_default="ingest"))
    op.add_column("jobs", sa.Column("change", sa.JSON))
    op.add_column("job_items", sa.Column("access", sa.JSON))
    op.add_column("documents", sa.Column("access", sa.JSON, nullable=False, server_default="[]"))
    op.add_column(
        "documents", sa.Column("edited_ms", sa.BigInteger, nullable=False, server_default="0")
    )
    op.create_table(
        "unfinished_labels",
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("document_id", sa.String(512), primary_key=True),
    )
