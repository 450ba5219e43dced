"""Sessions, answers and feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "sessions",
        *_owner(),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("used_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_sessions_used_ms", "sessions", ["used_ms"])
    op.create_table(
        "answers",
        *_owner(),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("session_id", sa.String(64)),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_answers_created_ms", "answers", ["created_ms"])
    op.create_index(
        "ix_answers_session", "answers", ["tenant", "caller", "session_id", "created_ms"]
    )
    op.create_table(
        "feedback",
        *_owner(),
        sa.Column("answer_id", sa.String(128), primary_key=True),
        sa.Column("rating", sa.String(8), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("passage", sa.Text, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "caller", "answer_id"],
            ["answers.tenant", "answers.caller", "answers.id"],
            ondelete="CASCADE",
        ),
    )


def _owner() -> tuple[sa.Column[str], sa.Column[str]]:
    return (
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("caller", sa.String(256), primary_key=True),
    )
