"""The audit log: which change was made, by whom, when, in which request; never any content.

Changes of keys are recorded in the transaction that makes them. Those that another service makes
are recorded after it said so, by a task, so that no reply waits for the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa
import structlog
from raglan.background import keep_running
from raglan.database import Database, PatientDatabase, now_ms
from raglan.telemetry import context as request_context
from sqlalchemy.orm import Session

from raglan_gateway import caller
from raglan_gateway.store.model import AuditEntry

log: Final = structlog.get_logger()
_MAX_WAITING: Final = 10_000
_BATCH: Final = 500
_CLOSE_S: Final = 2.0
_MAX_RESOURCE_CHARS: Final = 1_024


def entry(action: str, resource: str) -> dict[str, Any]:
    """Make the row of a change that the current caller makes in the current request."""
    who = caller.current()
    return {
        "at_ms": now_ms(),
        "caller": who.id[:256],
        "tenant": who.tenant,
        "action": action,
        "resource": resource[:_MAX_RESOURCE_CHARS],
        "request_id": request_context.request_id()[:128],
    }


def add(session: Session, rows: Sequence[dict[str, Any]], keep: int) -> None:
    """Add rows in a transaction, and drop those that the newest `keep` leave behind."""
    session.execute(sa.insert(AuditEntry), rows)
    newest = session.execute(sa.select(sa.func.max(AuditEntry.id))).scalar_one()
    session.execute(sa.delete(AuditEntry).where(AuditEntry.id <= newest - keep))


class AuditLog:
    """Writes entries in the order of the changes, and reads them.

    Args:
        keep: entries that are kept; the oldest leave first.
    """

    def __init__(self, database: Database, keep: int) -> None:
        self.keep = keep
        self._database = database
        self._patient = PatientDatabase(database)
        self._waiting: deque[dict[str, Any]] = deque()
        self._more = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that writes."""
        self._task = asyncio.create_task(keep_running("audit log", self._write))

    async def close(self) -> None:
        """Write what waits, as far as the database takes it in time, and end."""
        if self._task is None:
            return
        self._closing = True
        self._more.set()
        await asyncio.wait((self._task,), timeout=_CLOSE_S)
        if self._waiting:
            log.error("the end of the audit log was not written", entries=len(self._waiting))
        self._task.cancel()
        await asyncio.wait((self._task,))

    def record(self, action: str, resource: str) -> None:
        """Record a change that was made. It is in the process's log at once."""
        row = entry(action, resource)
        log.info("audit", action=action, resource=resource, caller=row["caller"])
        if len(self._waiting) >= _MAX_WAITING:
            log.error("an audit entry was dropped: too many wait for the database", action=action)
            return
        self._waiting.append(row)
        self._more.set()

    async def entries(self, *, tenant: str | None, before: int, limit: int) -> list[AuditEntry]:
        """Read entries, newest first.

        Args:
            tenant: whose entries; None for all.
            before: id of the entry to go on from; 0 begins with the newest.
            limit: most entries.
        """
        query = sa.select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(AuditEntry.tenant == tenant)
        if before:
            query = query.where(AuditEntry.id < before)
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def _write(self) -> None:
        while True:
            while self._waiting:
                batch = list(islice(self._waiting, _BATCH))
                await self._patient.run(partial(add, rows=batch, keep=self.keep))
                for _ in batch:
                    self._waiting.popleft()
            if self._closing:
                return
            await self._more.wait()
            self._more.clear()
