"""Liveness of ingesters: one name a process, and a heartbeat in the database.

Several ingesters may share one PostgreSQL and one data folder. Each holds a lock on its name, so
that a process that is started again takes the name of one that died, and with it its jobs.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa
from raglan.database import Transactions
from raglan.errors import Conflict
from sqlalchemy.orm import Session

from raglan_ingester.model import Worker

_PROCESSES_A_HOST: Final = 64


class WorkerName:
    """The name of this process, and the lock that it holds on it."""

    def __init__(self, name: str, lock: IO[str]) -> None:
        self.name = name
        self._lock = lock

    def release(self) -> None:
        """Let another process take the name."""
        self._lock.close()


def claim_name(data_dir: Path, *, configured: str, is_shared: bool) -> WorkerName:
    """Take a name that no living process on this folder has.

    Args:
        data_dir: the folder that all processes share.
        configured: as set; empty takes a name made of the host's.
        is_shared: whether the database takes several processes.

    Raises:
        Conflict: the name is taken, or SQLite's only process runs already.
    """
    if not is_shared:
        lock = _lock(data_dir / "lock")
        if lock is None:
            raise Conflict(
                f"Another ingester uses {data_dir}; stop it, set RAGLAN_INGESTER_DATA_DIR, or "
                "share the folder by RAGLAN_INGESTER_DATABASE_URL=postgresql://..."
            )
        return WorkerName(configured or "local", lock)
    host = socket.gethostname()
    names = [configured] if configured else [f"{host}-{n}" for n in range(_PROCESSES_A_HOST)]
    (data_dir / "workers").mkdir(exist_ok=True)
    for name in names:
        if lock := _lock(data_dir / "workers" / f"{name.replace('/', '_')}.lock"):
            return WorkerName(name, lock)
    raise Conflict(
        f"Another ingester on {data_dir} is called {names[0]}; give this one a "
        "RAGLAN_INGESTER_WORKER_NAME of its own."
    )


class Heartbeats:
    """Says that this process lives, and which others do.

    A process counts as dead when its counter has not moved for `lease_s` on our own clock: clocks
    of different hosts are never compared.
    """

    def __init__(
        self,
        database: Transactions,
        *,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        """Of every process: its counter, and when it moved last."""

    async def beat(self, name: str) -> None:
        """Count up for this process and look at the others. Raises Unavailable."""
        try:
            beats = await self._database.run(lambda session: _beat(session, name))
        except BaseException:
            # No heartbeat could be written meanwhile, so earlier observations are void.
            self._seen.clear()
            raise
        now = self._clock()
        before = self._seen
        self._seen = {
            other: before[other] if other in before and before[other][0] == count else (count, now)
            for other, count in beats.items()
        }

    def dead(self, names: Collection[str]) -> set[str]:
        """Return those of `names` whose heartbeat is overdue."""
        now = self._clock()
        return {
            name
            for name in names
            if name not in self._seen or now - self._seen[name][1] > self._lease_s
        }

    async def forget(self, names: Collection[str]) -> None:
        """Remove what is known of dead processes."""
        await self._database.run(
            lambda session: session.execute(sa.delete(Worker).where(Worker.name.in_(names)))
        )

    def known(self) -> set[str]:
        """Every process that has ever beaten and is not forgotten."""
        return set(self._seen)


def _beat(session: Session, name: str) -> dict[str, int]:
    mine = session.get(Worker, name) or Worker(name=name, beats=0)
    mine.beats += 1
    session.add(mine)
    session.flush()
    return {row.name: row.beats for row in session.scalars(sa.select(Worker))}


def _lock(path: Path) -> IO[str] | None:
    """The file, locked for this process alone however it ends; None when another holds it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
