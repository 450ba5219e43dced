"""Earlier versions of documents, and sentences that situate chunks in their documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the tables and the columns; documents of before are in collections without versions."""
    for name in ("version", "valid_from_ms"):
        op.add_column(
            "documents", sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        )
    op.create_table(
        "document_versions",
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("document_id", sa.String(512), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("valid_from_ms", sa.BigInteger, nullable=False),
        sa.Column("valid_to_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("metadata_json", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("access", sa.JSON, nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "chunk_contexts",
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("document_id", sa.String(512), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
    )
    op.add_column("jobs", sa.Column("context", sa.JSON))
    op.create_index("document_versions_by_expiry", "document_versions", ["expires_ms"])
