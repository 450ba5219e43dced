"""Documents whose passages an answer was made of, so that it can go with them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table. Answers that were kept before have no rows in it, and are deleted."""
    op.execute("DELETE FROM answers")
    op.create_table(
        "answer_sources",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("caller", sa.String(256), primary_key=True),
        sa.Column("answer_id", sa.String(128), primary_key=True),
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("document", sa.LargeBinary(16), primary_key=True),
        sa.ForeignKeyConstraint(
            ["tenant", "caller", "answer_id"],
            ["answers.tenant", "answers.caller", "answers.id"],
            ondelete="CASCADE",
        ),
        # Development versions had the table at revision 0002.
        if_not_exists=True,
    )
    op.create_index(
        "ix_answer_sources_document",
        "answer_sources",
        ["tenant", "collection", "document"],
        if_not_exists=True,
    )
