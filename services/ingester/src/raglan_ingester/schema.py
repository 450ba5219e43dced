"""The database's schema, brought up to this version by alembic in one transaction.

Any number of ingesters may start at once: a lock lets one of them migrate, and the others find it
done. DBOS keeps its own tables and migrates them itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from raglan.errors import Conflict

log: Final = structlog.get_logger()

VERSION_TABLE: Final = "raglan_schema"
"""Not alembic's default name, which another program in the same database may use."""

_ADVISORY_LOCK: Final = 0x7261_676C_616E
"""A number of PostgreSQL's advisory locks; arbitrary, but the same for every ingester."""


def migrate(engine: sa.Engine) -> str:
    """Apply the revisions that the database lacks, all or none; return the one it is at then.

    Raises:
        Conflict: a later version of Raglan has migrated it.
    """
    head = newest()
    with engine.connect() as connection:
        if _check(_revision(connection)) == head:
            return head  # without a lock, and without the right to change tables
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        before = _check(_revision(connection))
        if before != head:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            log.info("the database's schema was migrated", before=before or "none", now=head)
    return head


def newest() -> str:
    """Return the revision that this version of Raglan works with."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def is_known(revision: str) -> bool:
    """Return whether this version of Raglan knows a revision."""
    return any(script.revision == revision for script in _scripts().walk_revisions())


def _check(revision: str | None) -> str | None:
    if revision is not None and not is_known(revision):
        raise Conflict(
            f"The ingester's database has schema {revision}, of a newer version of Raglan; this "
            f"one knows up to {newest()}. Start the newer version, or restore a backup into an "
            "empty database."
        )
    return revision


def _revision(connection: sa.Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _config() -> Config:
    config = Config()
    # A percent sign would be read as an interpolation.
    folder = str(Path(__file__).with_name("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
