"""Answers, sessions and feedback in the gateway's database, off the path of a query.

An answer waits in a bounded queue and is written with others in one transaction; a query never
waits for the database to write. What finds no place is lost and counted. Reads wait until what was
queued before them is written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog
from raglan.background import keep_running
from raglan.database import Database, DatabaseUnavailable, now_ms
from raglan.errors import RaglanError
from sqlalchemy.orm import Session

from raglan_gateway import caller
from raglan_gateway.conversation import changes, rows
from raglan_gateway.conversation.records import (
    Bounds,
    DocumentKey,
    History,
    NewAnswer,
    OpenChange,
    Owner,
)

log: Final = structlog.get_logger()
T = TypeVar("T")

WAITING: Final = 2_000
"""Answers on their way to the database; more are lost."""
WAITING_BYTES: Final = 64 * 1024 * 1024
RECORD_BYTES: Final = 1024 * 1024
"""Largest answer that is kept, with its request."""
SETTLE_S: Final = 1.0
"""Longest wait of a read for the writes before it, and for the database."""

_BATCH: Final = 200
_AGAIN_S: Final = 0.5
_PURGE_S: Final = 30.0
_ABANDONED_MS: Final = 60_000
"""Longer than a request to change documents takes: whoever made it is gone."""


class Archive:
    """Kept answers and sessions. Start it inside a running event loop; close it.

    Args:
        database: closed by its owner, after this.
        bounds: what is kept.
        lost: called with the number of answers that could not be kept.
    """

    def __init__(self, database: Database, bounds: Bounds, lost: Callable[[int], None]) -> None:
        self._database = database
        self._bounds = bounds
        self._lost = lost
        self._waiting: deque[NewAnswer] = deque()
        self._waiting_bytes = 0
        self._queued = self._written = 0
        self._more = asyncio.Event()
        self._progress = asyncio.Condition()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.is_away = self.is_on
        """True while the database cannot be written, as before it is first opened."""

    @property
    def is_on(self) -> bool:
        """True if anything is kept."""
        return self._bounds.age_ms > 0

    def start(self) -> None:
        """Start writing."""
        if self.is_on:
            self._tasks = (
                asyncio.create_task(keep_running("write answers", self._write_all)),
                asyncio.create_task(keep_running("purge answers", self._purge_all)),
            )

    async def close(self) -> None:
        """Write what waits, for `SETTLE_S` at most, and stop."""
        if not self._tasks:
            return
        try:
            await self._settle()
        except RaglanError:
            self._lost(len(self._waiting))
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def keep(self, answer: NewAnswer) -> None:
        """Queue an answer; it is lost where there is no place."""
        if not self.is_on:
            return
        size = len(answer.record)
        is_full = len(self._waiting) >= WAITING or self._waiting_bytes + size > WAITING_BYTES
        if is_full or size > RECORD_BYTES:
            self._lost(1)
            return
        self._waiting.append(answer)
        self._waiting_bytes += size
        self._queued += 1
        self._more.set()

    async def history(self, session_id: str, limit: int) -> History:
        """Return the last turns of a session.

        Raises:
            DatabaseUnavailable: they cannot be read now.
        """
        return await self.run(rows.read_history, session_id, limit)

    async def run(self, work: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run one of `rows`' functions for the current caller.

        Raises:
            NotFound: there is no such row of this caller.
            DatabaseUnavailable: the database did not answer within `SETTLE_S`.
        """
        await self._settle()
        owner = current_owner()

        def with_owner(session: Session) -> T:
            return work(session, owner, *arguments, **named)

        try:
            async with asyncio.timeout(SETTLE_S):
                return await self._database.run(with_owner)
        except TimeoutError:
            raise _unavailable() from None

    async def erase(self, work: Callable[..., None], *arguments: object) -> None:
        """Run a deletion for the current caller, and leave nothing of it in the log of SQLite."""
        await self.run(work, *arguments)
        await self._database.truncate_log()

    async def note_change(self, collection: str, document_ids: Sequence[str] = ()) -> str:
        """Note a change of documents before it begins; see `changes.note_change`.

        Raises:
            DatabaseUnavailable: it cannot be noted now.
        """
        return await self.run(changes.note_change, collection, document_ids) if self.is_on else ""

    async def follow_job(self, change_id: str, job_id: str) -> None:
        """Note the job that makes a change.

        Raises:
            DatabaseUnavailable: it cannot be noted now.
        """
        if self.is_on:
            await self.run(changes.follow_job, change_id, job_id)

    async def drop_change(self, change_id: str) -> None:
        """Remove a change that was refused or changed nothing.

        Raises:
            DatabaseUnavailable: it cannot be removed now.
        """
        if self.is_on:
            await self.run(changes.drop_change, change_id)

    async def delete_changed(self, change_id: str, untouched: Sequence[str] = ()) -> None:
        """Close a change and delete the answers of its documents; see `changes.delete_changed`.

        Raises:
            DatabaseUnavailable: they cannot be deleted now.
        """
        if self.is_on:
            await self.erase(changes.delete_changed, change_id, untouched)

    async def open_changes(self) -> list[OpenChange]:
        """Return changes that jobs make, and others that nothing has closed for a minute.

        Raises:
            DatabaseUnavailable: they cannot be read now.
        """
        if not self.is_on or self.is_away:
            return []
        before_ms = now_ms() - _ABANDONED_MS
        return await self._database.run(partial(changes.open_changes, before_ms=before_ms))

    async def _settle(self) -> None:
        """Return once what waits now is written.

        Raises:
            DatabaseUnavailable: it is not within `SETTLE_S`.
        """
        target = self._queued
        if self.is_away:
            raise _unavailable()
        try:
            async with asyncio.timeout(SETTLE_S), self._progress:
                await self._progress.wait_for(lambda: self._written >= target)
        except TimeoutError:
            raise _unavailable() from None

    async def _write_all(self) -> None:
        await self._prepare()
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                batch = [self._waiting[at] for at in range(min(_BATCH, len(self._waiting)))]
                await self._write(batch)

    async def _prepare(self) -> None:
        while True:
            try:
                await self._database.create()
            except RaglanError as error:
                self._note_away(error)
                await asyncio.sleep(_AGAIN_S)
            else:
                self.is_away = False
                return

    async def _write(self, batch: Sequence[NewAnswer]) -> None:
        try:
            await self._database.run(partial(rows.insert_answers, new=batch))
        except DatabaseUnavailable as error:
            self._note_away(error)
            await asyncio.sleep(_AGAIN_S)
            return
        except Exception:
            # One that no database takes must not keep the others from it.
            log.exception("answers cannot be kept", answers=len(batch))
            self._lost(len(batch))
        self.is_away = False
        for each in batch:
            self._waiting.popleft()
            self._waiting_bytes -= len(each.record)
        async with self._progress:
            self._written += len(batch)
            self._progress.notify_all()

    async def _purge_all(self) -> None:
        while True:
            await asyncio.sleep(_PURGE_S)
            await self.purge()

    async def purge(self) -> None:
        """Delete what is beyond the bounds."""
        try:
            await self._database.run(partial(rows.purge, bounds=self._bounds))
            await self._database.truncate_log()
        except DatabaseUnavailable as error:
            log.debug("answers are purged later", reason=error.message)

    def _note_away(self, error: RaglanError) -> None:
        if not self.is_away:
            log.warning("answers wait for the database", reason=error.message)
        self.is_away = True


def current_owner() -> Owner:
    """Return the owner of what the current caller keeps."""
    who = caller.current()
    return Owner(who.tenant, who.id)


def new_answer(
    answer_id: str,
    session_id: str | None,
    question: str,
    answer: str,
    record: bytes,
    *,
    began_ms: int,
    sources: frozenset[DocumentKey] = frozenset(),
) -> NewAnswer:
    """An answer of the current caller, given now to a request of `began_ms`."""
    return NewAnswer(
        current_owner(),
        answer_id,
        session_id,
        now_ms(),
        question,
        answer,
        record,
        began_ms,
        sources,
    )


def _unavailable() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "The gateway's database does not answer; queries go on without sessions.",
        retry_after_s=1,
    )
