"""The mesh in this process: the supervisor, what it shows, and what it leaves for others."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from raglan_cli import display, log_files, runfile
from raglan_cli.failure import Failure
from raglan_cli.mesh import GATEWAY, Mesh, Program
from raglan_cli.readiness import is_ready, is_used, not_up_yet
from raglan_cli.rolling import Rolling, gap_of, publish
from raglan_cli.runfile import MeshDocument, RestartEntry
from raglan_cli.screen import err, note
from raglan_cli.shared_socket import SharedSocket
from raglan_cli.supervisor import Process, State, Supervisor

_POLL_S: Final = 0.05


async def supervise(planned: Mesh, start_limit_s: float) -> int:
    """Run the mesh until a signal asks for its end; the exit status."""
    run = _Run(planned, datetime.now(UTC))
    most = log_files.max_bytes(os.environ)
    try:
        publish(planned.data, planned.endpoints)
    except OSError as error:
        raise Failure(f"{planned.data} cannot be written to: {error.strerror}.") from None
    with closing(SharedSocket(*planned.listen)) as shared_socket:
        supervisor = Supervisor(
            planned.programs,
            is_ready=is_ready,
            on_change=run.on_change,
            shared_socket=shared_socket,
        )
        run.supervisor = supervisor
        rotating = asyncio.create_task(log_files.keep_small(planned.data / "logs", most))
        try:
            return await _supervise(supervisor, run, start_limit_s)
        finally:
            rotating.cancel()
            await asyncio.wait((rotating,))


async def _supervise(supervisor: Supervisor, run: _Run, start_limit_s: float) -> int:
    stop_asked = asyncio.Event()
    _on_signals(lambda: _stop_or_kill(stop_asked, supervisor))
    rolling = Rolling(
        supervisor,
        run.planned.data,
        is_used=run.is_used,
        start_limit_s=start_limit_s,
    )
    asyncio.get_running_loop().add_signal_handler(
        runfile.RESTART_SIGNAL, lambda: run.on_restart_requested(rolling)
    )
    try:
        await _start_and_watch(supervisor, run, start_limit_s, stop_asked)
    except Failure as failure:
        note(failure.message, style="red")
        run.change(State.FAILED, failure.message)
        return failure.status
    finally:
        await run.end_restart()
        await _stop(supervisor, run)
    return 0


async def _start_and_watch(
    supervisor: Supervisor, run: _Run, start_limit_s: float, stop_asked: asyncio.Event
) -> None:
    began = time.monotonic()
    with display.live_table(lambda: run.document()["services"]):
        await _unless(stop_asked, _start(supervisor, start_limit_s))
    if stop_asked.is_set():
        return
    run.change(State.READY)
    display.show_ready(run.document(), time.monotonic() - began, detached=False)
    await _unless(stop_asked, supervisor.watch())


async def _start(supervisor: Supervisor, limit_s: float) -> None:
    """Start everything; return when each gateway has seen each service serving.

    Raises:
        Failure: as `Supervisor.start`, or a gateway did not reach one of them in time.
    """
    until = time.monotonic() + limit_s
    await supervisor.start(limit_s=limit_s)
    for gateway in supervisor.own_addresses(GATEWAY):
        while missing := await not_up_yet(f"http://{gateway}"):
            if time.monotonic() > until:
                raise Failure(
                    f"Not ready after {limit_s:g} s: the gateway does not reach "
                    f"{', '.join(missing)}. Allow it more with --start-limit."
                )
            await asyncio.sleep(_POLL_S)


@dataclass
class _Run:
    """The mesh being run: what its processes do becomes mesh.json and lines on the screen."""

    planned: Mesh
    started_at: datetime
    state: State = State.STARTING
    reason: str | None = None
    supervisor: Supervisor | None = None
    restart: RestartEntry | None = None
    restarting: asyncio.Task[None] | None = None

    def document(self) -> MeshDocument:
        processes = self.supervisor.processes if self.supervisor else []
        return MeshDocument(
            url=self.planned.url,
            pid=os.getpid(),
            version=version("raglan-cli"),
            state=self.state.value,
            reason=self.reason,
            started_at=self.started_at.isoformat(timespec="seconds"),
            data=str(self.planned.data),
            stop_s=self.planned.stop_s,
            restart=self.restart,
            otlp=self.planned.otlp,
            services=[process.entry() for process in processes],
        )

    def change(self, state: State, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self.save()

    async def is_used(self, program: Program) -> bool:
        """Return whether every gateway sends calls to `program`."""
        gateways = self.supervisor.own_addresses(GATEWAY) if self.supervisor else []
        using = [await is_used(f"http://{each}", program) for each in gateways]
        return bool(using) and all(using)

    def on_change(self, process: Process) -> None:
        self.save()
        if process.program.service == GATEWAY and self.supervisor:
            with suppress(OSError):  # as `save`; metrics of the others can wait
                publish(self.planned.data, {GATEWAY: self.supervisor.own_addresses(GATEWAY)})
        news = process.restarts or process.state is State.READY
        starting = self.state is State.STARTING and err.is_terminal  # the live table shows it
        if news and not starting and self.state is not State.STOPPING:
            note(display.line(process.entry()))

    def on_restart_requested(self, rolling: Rolling) -> None:
        """Begin the requested restart, unless one is in progress."""
        request = runfile.requested_restart(self.planned.data)
        if request and not (self.restart and self.restart["state"] == "running"):
            self.restart = RestartEntry(
                id=request["id"], state="running", doing="", gap="", reason=None
            )
            self.restarting = asyncio.create_task(self._restart(rolling, request["services"]))
            self.save()

    async def end_restart(self) -> None:
        """Give up the restart that is going on."""
        if self.restarting is not None:
            self.restarting.cancel()
            await asyncio.wait((self.restarting,))

    async def _restart(self, rolling: Rolling, services: list[str]) -> None:
        assert self.restart is not None

        def doing(program: Program) -> None:
            assert self.restart is not None
            self.restart |= {"doing": program.name, "gap": gap_of(program)}
            self.save()
            note(display.restarted(self.restart))

        try:
            if self.state is not State.READY:
                raise Failure(f"The mesh is {self.state.value}.")
            await rolling.restart(services, doing)
            self.restart["state"] = "done"
        except (Failure, OSError) as failure:  # addresses are published in a file
            self.restart |= {"state": "failed", "reason": str(failure)}
            note(f"The restart was abandoned: {failure}", style="red")
        except asyncio.CancelledError:
            self.restart |= {"state": "failed", "reason": "The mesh was stopped."}
            raise
        finally:
            self.save()

    def save(self) -> None:
        with suppress(OSError):  # a full disk is no reason to end the mesh
            runfile.write(self.planned.data, self.document())


async def _stop(supervisor: Supervisor, run: _Run) -> None:
    failed = run.state is State.FAILED
    if not failed:
        note("Stopping; Ctrl-C again ends everything at once.", style="dim")
        run.change(State.STOPPING)
    await supervisor.stop()
    if not failed:
        run.change(State.STOPPED)


async def _unless(stop_asked: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it ends or the event is set, whichever comes first."""
    doing = asyncio.create_task(work)
    waiting = asyncio.create_task(stop_asked.wait())
    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if doing.done():
        doing.result()
        return
    doing.cancel()
    with suppress(asyncio.CancelledError):
        await doing


def _on_signals(handler: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, handler)


def _stop_or_kill(stop_asked: asyncio.Event, supervisor: Supervisor) -> None:
    if stop_asked.is_set():
        supervisor.kill()
    stop_asked.set()
