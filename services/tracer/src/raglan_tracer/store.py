"""The newest traces in a file: bounded in number and bytes, written and read by one thread.

A file that cannot be written costs a warning, and the traces are kept in memory instead; one that
is damaged is set aside. Nothing here ever fails a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from raglan.errors import Unavailable
from raglan.v1.traces_pb2 import ListTracesRequest

from raglan_tracer.sampler import Reason

log: Final = structlog.get_logger()
T = TypeVar("T")

QUEUE: Final = 1_024
"""Traces that wait to be written; more are dropped, and counted."""

IN_MEMORY: Final = 1_000
"""Traces kept where there is no file to keep them in."""

_READ_S: Final = 5.0
_WARN_EVERY_S: Final = 60.0
_VERSION: Final = 1
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS traces (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trace_id BLOB NOT NULL UNIQUE, route TEXT NOT NULL,
    name TEXT NOT NULL, status INTEGER NOT NULL, error INTEGER NOT NULL, degraded INTEGER NOT NULL,
    hedged INTEGER NOT NULL, retried INTEGER NOT NULL, start_ns INTEGER NOT NULL,
    duration_ms REAL NOT NULL, reasons TEXT NOT NULL, spans INTEGER NOT NULL,
    dropped INTEGER NOT NULL, complete INTEGER NOT NULL, missing TEXT NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS bodies (
    seq INTEGER PRIMARY KEY REFERENCES traces (seq) ON DELETE CASCADE, body BLOB NOT NULL
);
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace without its spans."""

    trace_id: bytes
    route: str
    """The route's template; empty for a trace that began elsewhere."""
    name: str
    status: int
    """HTTP status; 0 for a trace that began elsewhere."""
    error: bool
    degraded: bool
    hedged: bool
    retried: bool
    start_ns: int
    """Nanoseconds since 1970."""
    duration_ms: float
    reasons: str
    """Reasons for keeping it, separated by commas."""
    spans: int
    dropped: int
    complete: bool
    """True if every reachable process has answered and no span was dropped."""
    missing: str
    """Addresses that did not answer, with commas."""


_COLUMNS: Final = tuple(field.name for field in fields(Summary))
_PUT: Final = (
    f"INSERT INTO traces ({', '.join(_COLUMNS)}, bytes) "  # noqa: S608 - names from above
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))}) ON CONFLICT (trace_id) DO UPDATE SET "
    f"{', '.join(f'{name} = excluded.{name}' for name in (*_COLUMNS[1:], 'bytes'))} RETURNING seq"
)
_TOO_MANY: Final = (
    "DELETE FROM traces WHERE seq <= (SELECT seq FROM traces ORDER BY seq DESC LIMIT 1 OFFSET ?)"
)
_FILTERS: Final[Mapping[Any, str]] = {
    **{n: f"{n} = ?" for n in ("route", "status", "error", "degraded", "hedged", "retried")},
    "min_duration_ms": "duration_ms >= ?",
    "before": "seq < ?",
}
_HELD: Final = "SELECT coalesce(sum(bytes), 0) FROM traces"
_CALLERS: Final = (Reason.REFUSED, Reason.WANTED, Reason.RECEIVED, Reason.LOOKED_AT)
_CALLERS_SHARE: Final = 0.2
"""Of the file, for the traces that callers can bring about at will: those of their mistakes, those
they ask for, those they send. Each kind has so much; a kind that has more loses its oldest."""

_KIND: Final = (
    "CASE WHEN status BETWEEN 400 AND 499 THEN 'refused' "
    "ELSE substr(reasons, 1, instr(reasons || ',', ',') - 1) END"
)
_TOO_MANY_OF_CALLERS: Final = (
    "DELETE FROM traces WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER newest AS "  # noqa: S608 - names from above
    f"place, sum(bytes) OVER newest AS held FROM (SELECT seq, bytes, {_KIND} AS kind FROM traces) "
    f"WHERE kind IN ({', '.join(repr(kind.value) for kind in _CALLERS)}) "
    "WINDOW newest AS (PARTITION BY kind ORDER BY seq DESC)) WHERE place > ? OR held > ?)"
)
_TOO_LARGE: Final = (
    "DELETE FROM traces WHERE seq <= (SELECT seq FROM (SELECT seq, sum(bytes) OVER "
    "(ORDER BY seq DESC) AS held FROM traces) WHERE held > ? ORDER BY seq DESC LIMIT 1)"
)


def _conditions(wanted: ListTracesRequest) -> tuple[str, list[Any]]:
    """The condition of a list, and what it binds."""
    conditions, values = ["1"], []
    for name, comparison in _FILTERS.items():
        if wanted.HasField(name):
            conditions.append(comparison)
            values.append(getattr(wanted, name))
    return " AND ".join(conditions), [*values, wanted.limit]


class _File:
    """The database, as its one thread uses it."""

    def __init__(self, path: Path | None, newest: int, max_bytes: int) -> None:
        self.newest = newest
        self.max_bytes = max_bytes
        if path is not None:
            # Queries and answers may be in it. What SQLite puts beside it has the same mode.
            path.touch(mode=0o600)
            path.chmod(0o600)
        self._database = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False, timeout=2
        )
        try:
            if path is not None:
                self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("PRAGMA foreign_keys = ON")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"its version is {version}, not {_VERSION}")
            self._database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except sqlite3.Error:
            self._database.close()
            raise

    def put(self, traces: Sequence[tuple[Summary, bytes]]) -> int:
        """Write traces; return the number not written, 0."""
        with self._transaction() as run:
            for summary, spans in traces:
                body = zlib.compress(spans, 1)
                [(seq,)] = run(_PUT, (*astuple(summary), len(body))).fetchall()
                run("INSERT OR REPLACE INTO bodies VALUES (?, ?)", (seq, body))
            if any(_is_callers(summary) for summary, _ in traces):
                share = max(1, int(self.newest * _CALLERS_SHARE))
                run(_TOO_MANY_OF_CALLERS, (share, self.max_bytes * _CALLERS_SHARE))
            run(_TOO_MANY, (self.newest,))
            if run(_HELD).fetchone()[0] > self.max_bytes:
                run(_TOO_LARGE, (self.max_bytes,))
        return 0

    def get(self, trace_ids: Sequence[bytes]) -> dict[bytes, tuple[Summary, bytes]]:
        rows = self._database.execute(
            f"SELECT {', '.join(_COLUMNS)}, body FROM traces NATURAL JOIN bodies "  # noqa: S608
            f"WHERE trace_id IN ({', '.join('?' * len(trace_ids))})",
            trace_ids,
        )
        return {row[0]: (_summary(row), zlib.decompress(row[-1])) for row in rows}

    def newest_of(self, wanted: ListTracesRequest) -> list[tuple[int, Summary]]:
        condition, values = _conditions(wanted)
        rows = self._database.execute(
            f"SELECT {', '.join(_COLUMNS)}, seq FROM traces WHERE {condition} "  # noqa: S608
            "ORDER BY seq DESC LIMIT ?",
            values,
        )
        return [(row[-1], _summary(row)) for row in rows]

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
        except BaseException:
            # A full disk or a damaged file has undone it already.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


class TraceStore:
    """Make it and `await open()` it inside a running event loop; close it."""

    def __init__(self, path: Path | None, *, newest: int, max_bytes: int) -> None:
        """Keep the newest traces within both bounds.

        Args:
            path: the file; None keeps traces in memory only.
            newest: most traces.
            max_bytes: most bytes of their packed spans.
        """
        self.dropped = 0
        """Traces that were not written: too many at once, or the file refused them."""
        self._path = path
        self._newest = newest
        self._max_bytes = max_bytes
        self._file: _File | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="traces")
        self._waiting = 0
        self._warned_at = float("-inf")

    @property
    def in_memory(self) -> bool:
        """True if traces are in memory only."""
        return self._path is None

    async def open(self) -> None:
        """Open the file, or go without one; never raises for what is wrong with it."""
        try:
            await self._run(lambda: None)
        except Unavailable as error:
            log.warning("traces wait", file=str(self._path), reason=error.message)

    async def close(self) -> None:
        """Write what waits, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()
            self._file = None

    def put(self, traces: Sequence[tuple[Summary, bytes]]) -> None:
        """Write these, soon; a trace that is there is replaced. Never waits.

        Args:
            traces: each with its spans, a serialized `TracesData`.
        """
        room = max(0, QUEUE - self._waiting)
        self.dropped += len(traces[room:])
        if not (traces := traces[:room]):
            return
        self._waiting += len(traces)
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._put, traces)
        writing.add_done_callback(partial(self._written, len(traces)))

    async def get(self, trace_ids: Sequence[bytes]) -> dict[bytes, tuple[Summary, bytes]]:
        """Read stored traces with their spans, a few hundred at most.

        Raises:
            Unavailable: the disk is too slow.
        """
        nothing: dict[bytes, tuple[Summary, bytes]] = {}
        return await self._run(lambda: self._try(lambda file: file.get(trace_ids), nothing))

    async def newest(self, wanted: ListTracesRequest) -> list[tuple[int, Summary]]:
        """The newest traces of those `wanted`, each with its place in the order of arrival.

        Raises:
            Unavailable: the disk is too slow.
        """
        nothing: list[tuple[int, Summary]] = []
        return await self._run(lambda: self._try(lambda file: file.newest_of(wanted), nothing))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(_READ_S):
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: (self._opened(), work())[1]
                )
        except TimeoutError:
            raise Unavailable(
                f"The store of traces did not answer within {_READ_S:g} s.", retry_after_s=1
            ) from None

    def _written(self, count: int, writing: asyncio.Future[int]) -> None:
        self._waiting -= count
        self.dropped += writing.result()

    # From here on in the thread.

    def _put(self, traces: Sequence[tuple[Summary, bytes]]) -> int:
        return self._try(lambda file: file.put(traces), len(traces))

    def _try(self, work: Callable[[_File], T], otherwise: T) -> T:
        try:
            return work(self._opened())
        except (sqlite3.Error, zlib.error, OverflowError) as error:
            self._warn("traces cannot be kept or read", error)
            if _damaged(error):
                self._begin_anew()
            return otherwise

    def _opened(self) -> _File:
        if self._file is None:
            self._file = self._open()
        return self._file

    def _open(self) -> _File:
        if self._path is None:
            return _File(None, min(self._newest, IN_MEMORY), self._max_bytes)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return _File(self._path, self._newest, self._max_bytes)
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise
                self._warn("the file of traces is damaged; it is set aside", error)
                _set_aside(self._path)
                return _File(self._path, self._newest, self._max_bytes)
        except (OSError, sqlite3.Error) as error:
            self._warn("the file of traces cannot be used; they end with this process", error)
            self._path = None
            return self._open()

    def _begin_anew(self) -> None:
        """Set the file aside; the next use makes a new one."""
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                _set_aside(self._path)

    def _warn(self, event: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._warned_at > _WARN_EVERY_S:
            self._warned_at = now
            log.warning(event, file=str(self._path or "memory"), reason=str(error))


def _is_callers(summary: Summary) -> bool:
    """Whether it is one of those that callers can bring about at will, as `_KIND` tells them."""
    return 400 <= summary.status <= 499 or summary.reasons.partition(",")[0] in _CALLERS


def _damaged(error: Exception) -> bool:
    """Return whether the file is damaged, not just the disk full, busy or read-only."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _set_aside(path: Path) -> None:
    """Keep what is left of it for who wants to look; one set aside before goes."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.replace(path.with_name(path.name + ".damaged"))


def _summary(row: Sequence[Any]) -> Summary:
    values = dict(zip(_COLUMNS, row, strict=False))
    for name in ("error", "degraded", "hedged", "retried", "complete"):
        values[name] = bool(values[name])
    return Summary(**values)
