"""The tables of version 0.1.

Those that exist stay as they are: databases made before alembic have some or all of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.String(512)
NAME = sa.String(64)


def upgrade() -> None:
    """Create the tables."""
    _create_jobs()
    _create_documents()
    _create_bookkeeping()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("collection", NAME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("finished_ms", sa.BigInteger),
        if_not_exists=True,
    )
    op.create_index("ix_jobs_collection", "jobs", ["collection"], if_not_exists=True)
    op.create_index("ix_jobs_created_ms", "jobs", ["created_ms"], if_not_exists=True)
    op.create_table(
        "job_items",
        sa.Column("job_id", NAME, _of_job(), primary_key=True),
        sa.Column("ordinal", sa.BigInteger, primary_key=True),
        sa.Column("document_id", ID, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *_texts("error", "title", "metadata_json", "filename", "media_type"),
        sa.Column("sha256", NAME, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("job_id", "document_id"),
        if_not_exists=True,
    )
    op.create_index(
        "job_items_by_state", "job_items", ["job_id", "state", "ordinal"], if_not_exists=True
    )
    op.create_index("job_items_by_blob", "job_items", ["sha256"], if_not_exists=True)
    op.create_table(
        "job_warnings",
        sa.Column("job_id", NAME, _of_job(), primary_key=True),
        sa.Column("document_id", ID, primary_key=True),
        sa.Column("ordinal", sa.BigInteger, primary_key=True),
        *_texts("message"),
        if_not_exists=True,
    )
    op.create_table(
        "job_traces",
        sa.Column("job_id", NAME, _of_job(), primary_key=True),
        sa.Column("request", NAME, nullable=False),
        sa.Column("last_run", NAME, nullable=False),
        sa.Column("last_attempt", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("collection", NAME, primary_key=True),
        sa.Column("id", ID, primary_key=True),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *_texts("error", "title", "text", "metadata_json", "filename", "media_type"),
        sa.Column("sha256", NAME, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", NAME, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_index("documents_by_blob", "documents", ["sha256"], if_not_exists=True)
    op.create_table(
        "document_structures",
        sa.Column("collection", NAME, primary_key=True),
        sa.Column("document_id", ID, primary_key=True),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("structure", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
        if_not_exists=True,
    )


def _create_bookkeeping() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("beats", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "index_revisions",
        sa.Column("collection", NAME, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "unfinished_deletions",
        sa.Column("collection", NAME, primary_key=True),
        sa.Column("document_id", ID, primary_key=True),
        if_not_exists=True,
    )


def _of_job() -> sa.ForeignKey:
    return sa.ForeignKey("jobs.id", ondelete="CASCADE")


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
