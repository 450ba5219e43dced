"""When each source is synced, and by which of the ingesters.

A source belongs to the worker whose name is in its row. A dead worker's sources are taken over: a
worker counts as dead by the same heartbeats that its jobs move by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from raglan import access_tags, tenancy
from raglan.background import keep_running
from raglan.database import now_ms
from raglan.errors import NotFound, RaglanError, Unavailable
from raglan.identifiers import shortened

from raglan_ingester.model import Source
from raglan_ingester.sources.config import AnySource
from raglan_ingester.sources.reader import Reader
from raglan_ingester.sources.source_file import SourceFile
from raglan_ingester.sources.store import Lease, LeaseLostError, Outcome, SourceStore
from raglan_ingester.sources.sync import Ports, Sync

log: Final = structlog.get_logger()

_TICK_S: Final = 1.0
_AT_ONCE: Final = 4
"""Syncs of this process at a time; each holds a batch of documents in memory."""
_FIRST_RETRY_S: Final = 30
_MAX_RETRY_S: Final = 3600
_CLOSE_S: Final = 5.0

OpenReader = Callable[[AnySource], Reader]


@dataclass(frozen=True, slots=True)
class SourceView:
    """A source as its owner sees it."""

    settings: AnySource
    row: Source | None
    """None before its first sync."""
    totals: Mapping[str, int]
    """Its documents by state."""


class Scheduler:
    """Syncs sources in tasks of its own until it is closed.

    Args:
        file: what is configured.
        ports: what syncs work with.
        open_reader: opens the reader of a source.
        dead: returns those of some workers that are dead.
        is_paused: whether a backup is being restored.
    """

    def __init__(
        self,
        file: SourceFile,
        ports: Ports,
        open_reader: OpenReader,
        dead: Callable[[Collection[str]], set[str]],
        is_paused: Callable[[], Awaitable[bool]],
    ) -> None:
        self._file = file
        self._ports = ports
        self._open_reader = open_reader
        self._dead = dead
        self._is_paused = is_paused
        self._worker = ""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def _store(self) -> SourceStore:
        return self._ports.store

    async def start(self, worker: str) -> None:
        """Read the file and begin to sync, as the worker of this name."""
        self._worker = worker
        await self._file.refresh()
        self._task = asyncio.create_task(keep_running("sources", self._run), name="sources")

    async def close(self) -> None:
        """Interrupt the syncs; another process, or the next one, goes on with them."""
        tasks = [*self._running.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    # What callers see

    @property
    def file_error(self) -> str:
        """Error of the file; empty if there is none."""
        return self._file.error

    async def views(self) -> list[SourceView]:
        """Return the sources of the current tenant by name."""
        tenant = tenancy.current()
        rows, totals = await self._store.all(), await self._store.totals()
        return [
            SourceView(source, rows.get(name), totals.get(name, {}))
            for name, source in sorted(self._file.sources.items())
            if source.tenant == tenant
        ]

    async def request(self, name: str, *, accept_deletions: bool) -> SourceView:
        """Have a source synced now.

        Raises:
            NotFound: the current tenant has no such source.
        """
        source = self._file.sources.get(name)
        if source is None or source.tenant != tenancy.current():
            raise NotFound(f"There is no source {shortened(name)}.")
        await self._store.request(name, accept_deletions=accept_deletions)
        self._wake.set()
        return next(view for view in await self.views() if view.settings.name == name)

    # Scheduling

    async def _run(self) -> None:
        while True:
            await self._file.refresh()
            with suppress(Unavailable):  # the database is away
                await self._tick()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _tick(self) -> None:
        for name in [name for name in self._running if not self._is_wanted(name)]:
            self._running[name].cancel()
        if not self._file.sources or await self._is_paused():
            return
        rows = await self._store.all()
        # The longest due first: frequent sources would keep those after them from their turn.
        for name in sorted(self._file.sources, key=lambda name: _due_ms(rows.get(name))):
            if len(self._running) >= _AT_ONCE:
                return
            source, row = self._file.sources[name], rows.get(name)
            if name not in self._running and self._is_due(source, row) and self._is_free(row):
                await self._begin(source, row)

    def _is_wanted(self, name: str) -> bool:
        source = self._file.sources.get(name)
        return source is not None and source.enabled

    def _is_due(self, source: AnySource, row: Source | None) -> bool:
        if not source.enabled:
            return False
        if row is None:
            return True
        return row.is_requested or row.settings != source.digest or row.next_ms <= now_ms()

    def _is_free(self, row: Source | None) -> bool:
        # With the name of this worker: left by the process that had the name before.
        return row is None or row.owner in ("", self._worker) or bool(self._dead([row.owner]))

    async def _begin(self, source: AnySource, row: Source | None) -> None:
        former = row.owner if row else ""
        claimed = await self._store.claim(
            source.name, self._worker, former=former, settings=source.digest
        )
        if claimed is None:
            return
        task = asyncio.create_task(self._sync(source, claimed), name=f"sync {source.name}")
        self._running[source.name] = task
        task.add_done_callback(lambda _: self._ended(source.name))

    def _ended(self, name: str) -> None:
        self._running.pop(name, None)
        self._wake.set()

    async def _sync(self, source: AnySource, state: Source) -> None:
        lease = Lease(source.name, self._worker)
        try:
            # Whatever tags its documents were given: the source owns them.
            with tenancy.serving(source.tenant), access_tags.serving(None):
                outcome = await self._outcome(source, state, lease)
            await self._store.finish(lease, outcome)
        except asyncio.CancelledError:
            with suppress(RaglanError):
                await self._store.release(lease)
            raise
        except LeaseLostError as error:
            log.warning("a sync ends", source=source.name, reason=error.message)
        except RaglanError as error:  # the outcome could not be recorded: the sync is repeated
            log.warning("a sync is not recorded", source=source.name, reason=error.message)

    async def _outcome(self, source: AnySource, state: Source, lease: Lease) -> Outcome:
        reader: Reader | None = None
        try:
            reader = self._open_reader(source)
            sync = Sync(self._ports, source, state, lease, reader)
            await sync.run()
        except LeaseLostError:
            raise
        except RaglanError as error:
            log.warning("a sync failed", source=source.name, reason=error.message)
            return _failure(state, error.message)
        except Exception:
            log.exception("a sync broke off", source=source.name)
            return _failure(state, "The ingester met an error of its own; its log says more.")
        finally:
            if reader is not None:
                await reader.close()
        report = sync.report
        log.info("source synced", source=source.name, **report.counts)
        wait_s = min(source.every, _retry_s(state)) if report.error else source.every
        return Outcome(
            next_ms=now_ms() + wait_s * 1000,
            error=report.error,
            cursor=report.cursor,
            counts=report.counts,
            skipped=report.skipped.reasons,
        )


def _due_ms(row: Source | None) -> int:
    return 0 if row is None or row.is_requested else row.next_ms


def _failure(state: Source, message: str) -> Outcome:
    return Outcome(next_ms=now_ms() + _retry_s(state) * 1000, error=message, skipped=state.skipped)


def _retry_s(state: Source) -> int:
    return min(_MAX_RETRY_S, _FIRST_RETRY_S << min(state.failures, 10))
