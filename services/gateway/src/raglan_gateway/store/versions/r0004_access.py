"""Access tags of keys, and collections of which kept answers are to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column and the table. Keys of before name no tag."""
    op.add_column("api_keys", sa.Column("access", sa.JSON))
    op.create_table(
        "answer_purges",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
    )
