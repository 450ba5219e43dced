"""Starts the processes of a mesh, restarts those that crash, stops them all.

It knows programs, not services: what runs where is `mesh`, whether it answers is `readiness`.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from raglan_cli import log_files, reason, shim
from raglan_cli.failure import Failure
from raglan_cli.mesh import KILLED_S, Program
from raglan_cli.runfile import ServiceEntry
from raglan_cli.shared_socket import SharedSocket

STOP_FIRST: Final = ("gateway", "ingester")
"""They call the others, so they finish their work while the others still answer."""

_POLL_S: Final = 0.1
_UNSTARTED_GRACE_S: Final = 1.0


class State(StrEnum):
    """Displayed state of a process."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(slots=True)
class Backoff:
    """Restart delay of a crashed process: exponential, with a ceiling."""

    first_s: float = 1.0
    ceiling_s: float = 30.0
    forgiven_after_s: float = 60.0
    """A process that ran this long is taken to have been well, and begins at `first_s` again."""
    _next_s: float = 0.0

    def after_crash(self, ran_s: float) -> float:
        """Seconds to wait, for a process that ran `ran_s` before it ended."""
        if ran_s >= self.forgiven_after_s or not self._next_s:
            self._next_s = self.first_s
        wait_s = self._next_s
        self._next_s = min(self.ceiling_s, wait_s * 2)
        return wait_s


class Process:
    """One program, through all its restarts."""

    def __init__(self, program: Program, backoff: Backoff) -> None:
        self.program = program
        self.backoff = backoff
        self.probe = program
        """The program at an address where no other process answers for it."""
        self.child: asyncio.subprocess.Process | None = None
        self.state = State.STARTING
        self.since = self.started = time.time()
        self.ready_after_s: float | None = None
        self.restarts = 0
        self.reason: str | None = None
        self.wait_s = 0.0
        self.end_wanted = False
        """Expect its end, which is no crash: it will be started again."""

    def entry(self) -> ServiceEntry:
        """Its line of mesh.json."""
        running = self.child is not None and self.child.returncode is None
        return ServiceEntry(
            service=self.program.service,
            replica=self.program.replica,
            address=self.program.address,
            own_address=self.probe.address,
            pid=self.child.pid if self.child is not None and running else None,
            state=self.state.value,
            since=self.since,
            ready_after_s=self.ready_after_s,
            restarts=self.restarts,
            reason=self.reason,
            wait_s=self.wait_s,
            log=str(self.program.log),
        )

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and what it started; nothing when all of them are gone."""
        if self.child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, number)


class Supervisor:
    """Owns the processes. `start`, then `watch` until something ends it, then `stop`."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        is_ready: Callable[[Program], Awaitable[bool]],
        on_change: Callable[[Process], None] = lambda process: None,
        backoff: Callable[[], Backoff] = Backoff,
        shared_socket: SharedSocket | None = None,
    ) -> None:
        """`shared_socket` is the socket of programs that are `on_shared_socket`."""
        self.processes = [Process(program, backoff()) for program in programs]
        self._is_ready = is_ready
        self._on_change = on_change
        self._backoff = backoff
        self._shared_socket = shared_socket
        self._started = False
        self._keepers: dict[Process, asyncio.Task[None]] = {}

    async def start(self, *, limit_s: float) -> None:
        """Start everything at once; return when all of it is ready.

        Raises:
            Failure: a process ended, or was not ready after `limit_s`. Call `stop` all the same.
        """
        for process in self.processes:
            log_files.begin(process.program.log)
        for process in self.processes:
            self._keepers[process] = asyncio.create_task(self._keep(process))
        keepers = list(self._keepers.values())
        try:
            async with asyncio.timeout(limit_s):
                while not all(p.state is State.READY for p in self.processes):
                    for keeper in keepers:
                        if keeper.done():
                            keeper.result()
                    await asyncio.wait(
                        keepers, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                    )
        except TimeoutError:
            late = [p for p in self.processes if p.state is not State.READY]
            raise Failure(_too_late(late, limit_s)) from None
        self._started = True

    async def watch(self) -> None:
        """Keep everything running until cancelled."""
        while True:  # a rolling restart changes who keeps what
            ended = [keeper for keeper in self._keepers.values() if keeper.done()]
            for keeper in ended:
                keeper.result()
            await asyncio.wait(
                self._keepers.values(), timeout=1.0, return_when=asyncio.FIRST_COMPLETED
            )

    async def stop(self) -> None:
        """Ask every process to end, callers before those they call; kill what lingers.

        After a failed start there is no work to finish, so nothing gets long for it.
        """
        longest_s = math.inf if self._started else _UNSTARTED_GRACE_S
        keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        first = [p for p in self.processes if p.program.service in STOP_FIRST]
        for wave in (first, [p for p in self.processes if p not in first]):
            await asyncio.gather(*(self._end(process, longest_s) for process in wave))

    def kill(self) -> None:
        """End every process now. Follow with `stop`, which reaps them."""
        for process in self.processes:
            if process.child is not None and process.child.returncode is None:
                process.signal_group(signal.SIGKILL)

    def own_addresses(self, service: str) -> list[str]:
        """Addresses at which each ready process of `service` alone answers."""
        return [
            process.probe.address
            for process in self.processes
            if process.program.service == service and process.state is State.READY
        ]

    async def begin(self, program: Program, *, limit_s: float) -> Process:
        """Run one more program beside the others; return when it is ready.

        Raises:
            Failure: it ended, or was not ready in time. It is gone then.
        """
        process = Process(program, self._backoff())
        self.processes.append(process)
        self._keepers[process] = asyncio.create_task(self._keep(process))
        try:
            await self._until_ready(process, limit_s=limit_s)
        except Failure:
            await self.end(process)
            raise
        return process

    async def end(self, process: Process) -> None:
        """End a process for good, with its grace, and forget it."""
        keeper = self._keepers.pop(process)
        keeper.cancel()
        await asyncio.wait((keeper,))
        await self._end(process)
        self.processes.remove(process)
        self._on_change(process)

    async def again(self, process: Process, *, limit_s: float) -> None:
        """End a process, with its grace, and start it again; return when it is ready.

        Raises:
            Failure: it did not come back; it is started again and again, as after a crash.
        """
        before = process.child
        if before is not None and before.returncode is None:
            process.end_wanted = True
            self._change(process, State.STOPPING)
            process.signal_group(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(before.wait(), process.program.grace_s)
            process.signal_group(signal.SIGKILL)
        await self._until_ready(process, limit_s=limit_s, unlike=before)

    async def _until_ready(
        self,
        process: Process,
        *,
        limit_s: float,
        unlike: asyncio.subprocess.Process | None = None,
    ) -> None:
        crashes = process.restarts
        until = time.monotonic() + limit_s
        while process.state is not State.READY or process.child is unlike:
            if process.restarts > crashes:
                raise Failure(f"{process.program.name} did not start: {process.reason}")
            if time.monotonic() > until:
                raise Failure(_too_late([process], limit_s))
            await asyncio.sleep(_POLL_S)

    async def _keep(self, process: Process) -> None:
        """Run the program, again and again once the mesh has started.

        Raises:
            Failure: it ended before the mesh had started.
        """
        while True:
            began = time.monotonic()
            ended_by = await self._run_once(process)
            if process.end_wanted:
                process.end_wanted = False
                continue
            process.reason = ended_by
            if not self._started:
                self._change(process, State.FAILED)
                raise Failure(_died(process))
            process.restarts += 1
            process.wait_s = process.backoff.after_crash(time.monotonic() - began)
            self._change(process, State.RESTARTING)
            await asyncio.sleep(process.wait_s)

    async def _run_once(self, process: Process) -> str:
        """Run the program to its end; why it ended."""
        log = process.program.log
        offset = log.stat().st_size if log.exists() else 0
        try:
            process.probe, process.child = await self._spawn(process.program)
            child = process.child
        except OSError as error:
            return f"It cannot be started: {error.strerror}."
        self._change(process, State.STARTING)
        returncode = await self._until_exit(process, child)
        process.signal_group(signal.SIGKILL)  # what the crashed process may have left behind
        return reason.exit_reason(returncode, log, since=offset)

    async def _until_exit(self, process: Process, child: asyncio.subprocess.Process) -> int:
        ending = asyncio.create_task(child.wait())
        try:
            while not ending.done():
                starting = process.state is State.STARTING
                if starting and await self._is_ready(process.probe):
                    process.ready_after_s = round(time.time() - process.since, 2)
                    self._change(process, State.READY)
                pause = _POLL_S if process.state is State.STARTING else None
                await asyncio.wait({ending}, timeout=pause)
            return ending.result()
        finally:
            ending.cancel()

    async def _end(self, process: Process, longest_s: float = math.inf) -> None:
        child = process.child
        grace_s = min(process.program.grace_s, longest_s)
        if child is not None and child.returncode is None:
            self._change(process, State.STOPPING)
            process.signal_group(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), grace_s)
            process.signal_group(signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), KILLED_S)
        if process.state is not State.FAILED:
            self._change(process, State.STOPPED)

    def _change(self, process: Process, state: State) -> None:
        process.state = state
        process.since = time.time()
        self._on_change(process)

    async def _spawn(self, program: Program) -> tuple[Program, asyncio.subprocess.Process]:
        if self._shared_socket is None or not program.on_shared_socket:
            return program, await _spawn(program)
        with self._shared_socket.handover() as hand:
            child = await _spawn(
                replace(program, env={**program.env, **hand.env}), pass_fds=hand.descriptors
            )
        return replace(program, address=hand.address), child


async def _spawn(program: Program, pass_fds: tuple[int, ...] = ()) -> asyncio.subprocess.Process:
    argv = program.argv
    if sys.platform == "linux":
        argv = (sys.executable, shim.__file__, str(os.getpid()), *argv)
    with program.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *argv,
            env=dict(program.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A group of its own: Ctrl-C reaches the supervisor alone, which stops them in order.
            process_group=0,
            pass_fds=pass_fds,
        )


def _died(process: Process) -> str:
    return (
        f"The {process.program.service} ended during the start:\n{process.reason}\n"
        f"Its log: {process.program.log}"
    )


def _too_late(late: Sequence[Process], limit_s: float) -> str:
    names = ", ".join(map(_name_and_stage, late))
    logs = "\n".join(str(process.program.log) for process in late)
    return (
        f"Not ready after {limit_s:g} s: {names}. A first start may have a model to fetch: "
        f"allow it more with --start-limit. The logs:\n{logs}"
    )


def _name_and_stage(process: Process) -> str:
    stage = reason.stage_of_start(process.program.log)
    return f"{process.program.name} ({stage})" if stage else process.program.name
