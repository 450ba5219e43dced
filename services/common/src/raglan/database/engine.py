"""One engine over SQLite or PostgreSQL; every statement runs on a thread, never on the loop."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from raglan.database.schema import Schema
from raglan.errors import Conflict, Unavailable

T = TypeVar("T")

_BUSY_MS = 30_000
_PASSING_SQLITE: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)


class DatabaseUnavailable(Unavailable):
    """The database is away for now."""


class Transactions(Protocol):
    """A runner of transactions."""

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction."""
        ...


class Database:
    """Owns the engine and its threads. `await run(work)` gives `work` a session of its own.

    Args:
        url: of SQLAlchemy.
        schema: the tables.
        threads: statements at a time, each on a connection that stays open.
    """

    def __init__(self, url: str, schema: Schema, *, threads: int = 4) -> None:
        self.url = url
        self._schema = schema
        self.engine = sa.create_engine(url, pool_size=threads, max_overflow=2, pool_pre_ping=True)
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="database")

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction: committed when it returns, undone when it raises.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or its disk is full.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._in_session, work
        )

    async def ping(self) -> None:
        """Return once the database has answered.

        Raises:
            DatabaseUnavailable: it cannot be reached.
        """
        await self.run(lambda session: session.execute(sa.text("SELECT 1")))

    async def create(self) -> None:
        """Create the tables, or migrate them to this version.

        Raises:
            Unavailable: the server cannot be reached yet; trying again makes sense.
            Conflict: a newer version of Raglan has migrated them.
        """
        await asyncio.to_thread(self.migrate)

    def migrate(self) -> str:
        """Like `create`, on this thread; return the revision of the schema."""
        try:
            return self._schema.migrate(self.engine)
        except sa.exc.OperationalError as error:
            if self.engine.dialect.name == "sqlite":
                raise Conflict(
                    f"The database {self.engine.url.database} cannot be used: {error.orig}."
                ) from None
            variable = f"RAGLAN_{self._schema.service.upper()}_DATABASE"
            raise Unavailable(
                "The database cannot be reached or refuses the login; check "
                f"{variable}_URL and {variable}_PASSWORD.",
                retry_after_s=1,
            ) from error

    async def truncate_log(self) -> None:
        """Empty SQLite's log, which keeps what was deleted; left for later when it is in use."""
        if self.engine.dialect.name == "sqlite":
            await asyncio.get_running_loop().run_in_executor(self._threads, self._truncate_log)

    def _truncate_log(self) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            try:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")

    async def close(self) -> None:
        """Stop the threads and close all connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self.engine.dispose()

    def _in_session(self, work: Callable[[Session], T]) -> T:
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                return work(session)
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            if not _will_pass(error):
                raise
            raise DatabaseUnavailable(
                f"The {self._schema.service}'s database cannot be reached or cannot write; nothing "
                "is lost, try again when it is back.",
                retry_after_s=1,
            ) from error


class PatientDatabase:
    """The same for work that has no caller waiting: it is repeated until the database is back.

    Only for work that may be done twice: a commit whose answer was lost is repeated too.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction, as often as it takes."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
        )

        async def once() -> T:  # tenacity awaits only what it sees to be a coroutine function
            return await self._database.run(work)

        result: T = await retrying(once)
        return result


def _will_pass(error: Exception) -> bool:
    """Return whether the same statement may succeed later: the database is away, full or locked."""
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool came free
        return True
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
        return code in _PASSING_SQLITE
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) or (
        isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    )


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # NORMAL: what was committed survives the death of the process; only a power cut may undo the
    # last commits (never corrupt the file), and FULL costs an fsync a commit.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"busy_timeout={_BUSY_MS}",
        "foreign_keys=ON",
        # Deleted rows are overwritten, not only unlinked.
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
