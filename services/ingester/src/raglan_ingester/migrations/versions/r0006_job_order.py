"""The order of jobs, edits of documents under way, and refusals of labels by the index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns and the table.

    Jobs of before have the number 1 and documents the number 0: a job that is under way goes on
    with the documents of before, and leaves those alone that are submitted from now on.
    """
    op.add_column("jobs", _counter("number", "1"))
    op.add_column("job_items", sa.Column("edits", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("documents", _counter("submission", "0"))
    op.add_column("unfinished_labels", _counter("attempts", "0"))
    op.add_column(
        "unfinished_labels", sa.Column("error", sa.Text, nullable=False, server_default="")
    )
    op.create_table(
        "job_counters",
        sa.Column("collection", sa.String(128), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )


def _counter(name: str, before: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=before)
