"""Sources: their state, and the documents that each of them brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = sa.String(64)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "sources",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("settings", NAME, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("is_requested", sa.Boolean, nullable=False),
        sa.Column("accepts_deletions", sa.Boolean, nullable=False),
        sa.Column("next_ms", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("finished_ms", sa.BigInteger),
        sa.Column("succeeded_ms", sa.BigInteger),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("skipped", sa.JSON, nullable=False),
    )
    op.create_table(
        "source_documents",
        sa.Column("source", NAME, primary_key=True),
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("document_id", sa.String(512), primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("missing_ms", sa.BigInteger),
    )
