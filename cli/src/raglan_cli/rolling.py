"""Restarting a running mesh, one process after the other, so that callers lose nothing.

- A gateway: a new one serves on the same socket before the old one ends.
- A service with replicas: each in its place, while the others answer.
- One alone of which there may be two: a stand-in answers while it is restarted.
- One that holds its data alone, the ingester, the tracer and a retriever over Edge: there is a
  gap, which `gap_of` describes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from raglan_cli.mesh import (
    BEHIND_GATEWAY,
    GATEWAY,
    Program,
    addresses_file,
    stand_in,
)
from raglan_cli.supervisor import Process, Supervisor

ORDER: Final = (*BEHIND_GATEWAY, GATEWAY)

_GAPS: Final = {
    "retriever": "its index has one owner, so until it is back, in a second or a few, searches "
    "are answered from the cache or refused with 503",
    "ingester": "its jobs have one owner, so until it is back uploads are refused with 503; "
    "jobs go on where they stood",
    "tracer": "its store has one owner, so until it is back traces cannot be looked at; the newest "
    "requests are remembered and kept then",
}
"""Consequence, by service, if a process cannot overlap with its successor."""

_POLL_S: Final = 0.1
_UNPUBLISHED_S: Final = 2.0
"""For the gateway to notice that an address has left the file, which it reads every second."""


class Rolling:
    """Restarts the processes of a supervisor."""

    def __init__(
        self,
        supervisor: Supervisor,
        data: Path,
        *,
        is_used: Callable[[Program], Awaitable[bool]],
        start_limit_s: float,
        used_within_s: float = 10.0,
    ) -> None:
        """`is_used`: whether the gateways send calls to a program."""
        self._supervisor = supervisor
        self._data = data
        self._is_used = is_used
        self._start_limit_s = start_limit_s
        self._used_within_s = used_within_s

    async def restart(self, services: Iterable[str], doing: Callable[[Program], None]) -> None:
        """Restart `services`, by default all, and say before each process which it is.

        Raises:
            Failure: a process did not come up again; those after it were left as they are.
        """
        wanted = set(services) or set(ORDER)
        for process in sorted(self._supervisor.processes, key=_position):
            if process.program.service in wanted:
                doing(process.program)
                await self._restart(process)

    async def _restart(self, process: Process) -> None:
        program = process.program
        if program.on_shared_socket:
            await self._hand_over(process)
        elif not program.alone and len(self._replicas(program.service)) == 1:
            async with self._stand_in(program):
                await self._in_place(process)
        else:
            await self._in_place(process)

    async def _hand_over(self, old: Process) -> None:
        new = await self._supervisor.begin(old.program, limit_s=self._start_limit_s)
        new.restarts = old.restarts
        await self._supervisor.end(old)

    async def _in_place(self, process: Process) -> None:
        await self._supervisor.again(process, limit_s=self._start_limit_s)
        await self._until_used(process.program)

    @asynccontextmanager
    async def _stand_in(self, program: Program) -> AsyncIterator[None]:
        """Run one more of `program`, and give it calls, within the block.

        It stays when the block fails: no other process answers then.
        """
        other = await self._supervisor.begin(stand_in(program), limit_s=self._start_limit_s)
        publish(self._data, {program.service: [program.address, other.program.address]})
        await self._until_used(other.program)
        yield
        publish(self._data, {program.service: [program.address]})
        await asyncio.sleep(_UNPUBLISHED_S)
        await self._supervisor.end(other)

    async def _until_used(self, program: Program) -> None:
        """The next process must not end while the gateway still looks past this one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._used_within_s):
                while True:
                    if await self._is_used(program):
                        return
                    await asyncio.sleep(_POLL_S)

    def _replicas(self, service: str) -> list[Process]:
        return [p for p in self._supervisor.processes if p.program.service == service]


def gap_of(program: Program) -> str:
    """Describe the gap for callers while `program` restarts; empty if there is none."""
    return _GAPS[program.service] if program.alone else ""


def publish(data: Path, endpoints: Mapping[str, Sequence[str]]) -> None:
    """Tell the gateways the addresses of services, without a restart of them."""
    for service, addresses in endpoints.items():
        path = addresses_file(data, service)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text("\n".join(addresses) + "\n", encoding="utf-8")
        temporary.replace(path)


def _position(process: Process) -> tuple[int, int]:
    return ORDER.index(process.program.service), process.program.replica
