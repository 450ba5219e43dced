"""Which deployment a database belongs to, and a restore that is under way."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables, and name the deployment."""
    deployments = op.create_table("deployments", sa.Column("id", sa.String(64), primary_key=True))
    op.bulk_insert(deployments, [{"id": secrets.token_hex(16)}])
    op.create_table(
        "restores",
        sa.Column("backup_id", sa.String(64), primary_key=True),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
    )
