"""Changes of documents that kept answers go with, in the place of purges of collections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table. Purges that have not ended become changes of whole collections."""
    changes = op.create_table(
        "document_changes",
        sa.Column("id", sa.String(160), primary_key=True),
        sa.Column("document", sa.LargeBinary(16), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64)),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("ix_document_changes_ended_ms", "document_changes", ["ended_ms"])
    purges = sa.table(
        "answer_purges",
        sa.column("tenant", sa.String),
        sa.column("collection", sa.String),
        sa.column("began_ms", sa.BigInteger),
    )
    op.execute(
        sa.insert(changes).from_select(
            ["id", "document", "tenant", "collection", "began_ms"],
            sa.select(
                purges.c.tenant + sa.literal("/") + purges.c.collection,
                sa.cast(sa.literal(""), sa.LargeBinary),
                purges.c.tenant,
                purges.c.collection,
                purges.c.began_ms,
            ),
        )
    )
    op.drop_table("answer_purges")
