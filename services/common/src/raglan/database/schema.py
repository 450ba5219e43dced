"""A database's schema, brought up to this version by alembic in one transaction.

Any number of processes may start at once: a lock lets one of them migrate, and the others find it
done. Services may share a database: each has a version table, and a lock, of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Schema:
    """The revisions of one service's tables."""

    service: str
    """Whose tables they are, as in "ingester": for messages and the names of settings."""

    versions: Path
    """Folder of the revisions."""

    version_table: str
    """Not alembic's default name, which another program in the same database may use."""

    advisory_lock: int
    """A number of PostgreSQL's advisory locks; arbitrary, but the same in every process."""

    def migrate(self, engine: sa.Engine) -> str:
        """Apply the revisions that the database lacks, all or none; return the one it is at then.

        Raises:
            Conflict: a later version of Raglan has migrated it.
        """
        head = self.newest()
        with engine.connect() as connection:
            if self._check(self._revision(connection)) == head:
                return head  # without a lock, and without the right to change tables
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self.advisory_lock})")
            before = self._check(self._revision(connection))
            if before != head:
                config = self._config()
                config.attributes["connection"] = connection
                config.attributes["version_table"] = self.version_table
                command.upgrade(config, "head")
                log.info("the database's schema was migrated", before=before or "none", now=head)
        return head

    def newest(self) -> str:
        """Return the revision that this version of Raglan works with."""
        head = self._scripts().get_current_head()
        assert head is not None
        return head

    def is_known(self, revision: str) -> bool:
        """Return whether this version of Raglan knows a revision."""
        return any(script.revision == revision for script in self._scripts().walk_revisions())

    def _check(self, revision: str | None) -> str | None:
        if revision is not None and not self.is_known(revision):
            raise Conflict(
                f"The {self.service}'s database has schema {revision}, of a newer version of "
                f"Raglan; this one knows up to {self.newest()}. Start the newer version, or "
                "restore a backup into an empty database."
            )
        return revision

    def _revision(self, connection: sa.Connection) -> str | None:
        options = {"version_table": self.version_table}
        return MigrationContext.configure(connection, opts=options).get_current_revision()

    def _config(self) -> Config:
        config = Config()
        for option, folder in (
            ("script_location", Path(__file__).parent),
            ("version_locations", self.versions),
        ):
            # A percent sign would be read as an interpolation.
            config.set_main_option(option, str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        return config

    def _scripts(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(self._config())
