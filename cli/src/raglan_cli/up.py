"""`raglan up` and `raglan down`: the mesh on this machine, in front of you or in the background."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from raglan.settings import default_data_dir

from raglan_cli import display, mesh, runfile
from raglan_cli.failure import INTERRUPTED, Failure
from raglan_cli.readiness import is_ready
from raglan_cli.runfile import MeshDocument
from raglan_cli.screen import err, out
from raglan_cli.supervisor import Process, State, Supervisor

DEFAULT_PORT: Final = 8080
_STOP_LIMIT_S: Final = 40.0
"""Two waves of at most 12 s grace and 5 s to be gone each, and a little."""

_GONE_LIMIT_S: Final = 5.0

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Data folder. Default: $RAGLAN_DATA or ~/.local/share/raglan."
    ),
]


def up(
    data: DataOption = None,
    port: Annotated[
        int,
        typer.Option(help="Port of the gateway.", min=1, max=65535, envvar="RAGLAN_GATEWAY_PORT"),
    ] = DEFAULT_PORT,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=N", help="Run a service N times, e.g. embedder=2."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once ready; the mesh stays in the background.")
    ] = False,
    start_limit: Annotated[
        float, typer.Option(help="Seconds within which everything must be ready.", min=1)
    ] = 300,
) -> None:
    """Start the whole mesh on this machine.

    That is gateway, embedder, retriever, reranker, generator and ingester, a process each.
    They take their settings from RAGLAN_<SERVICE>_<FIELD>, e.g. RAGLAN_GENERATOR_ENGINE=openai.
    Ctrl-C stops everything.

    Examples:

      raglan up

      raglan up --data ./handbook --port 9000 --replicas embedder=2

      raglan up --detach; raglan ask "What is this about?"; raglan down
    """
    folder = data_folder(data)
    counts = mesh.parse_replicas(replicas or [])
    mesh.refuse_unknown_variables(os.environ)
    runfile.refuse_second(folder)
    planned = mesh.plan(folder, port, counts, os.environ)
    _refuse_taken_port(planned, port)
    if detach:
        _up_in_background(folder, port, replicas or [], start_limit)
    else:
        with runfile.held_lock(folder):
            raise typer.Exit(asyncio.run(_supervise(planned, start_limit)))


def down(data: DataOption = None) -> None:
    """Stop the mesh that runs on a data folder, and wait until all of it is gone.

    Examples:

      raglan down

      raglan down --data ./handbook
    """
    folder = data_folder(data)
    pid = runfile.running_pid(folder)
    document = runfile.read(folder)
    if pid is None:
        err.print(f"No mesh runs on {folder}.")
        return
    _terminate(folder, pid)
    pids = [s["pid"] for s in document["services"] if s["pid"]] if document else []
    _wait_until_gone([pid, *pids])
    out.print(f"Stopped the mesh on {folder}.")


def data_folder(data: Path | None) -> Path:
    """The data folder meant, as an absolute path."""
    return (data or default_data_dir()).expanduser().resolve()


def _refuse_taken_port(planned: mesh.Mesh, port: int) -> None:
    host = planned.url.removeprefix("http://").rpartition(":")[0]
    if not mesh.is_free(port, host):
        raise Failure(
            f"Port {port} is in use, so the gateway cannot listen on {host}:{port}. "
            f"Choose another: raglan up --port {port + 1}"
        )


@dataclass
class _Run:
    """The mesh being run: what its processes do becomes mesh.json and lines on the screen."""

    planned: mesh.Mesh
    started_at: datetime
    state: State = State.STARTING
    reason: str | None = None
    supervisor: Supervisor | None = None

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
            services=[process.entry() for process in processes],
        )

    def change(self, state: State, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self.save()

    def on_change(self, process: Process) -> None:
        self.save()
        news = process.restarts or process.state is State.READY
        starting = self.state is State.STARTING and err.is_terminal  # the live table shows it
        if news and not starting and self.state is not State.STOPPING:
            err.print(display.line(process.entry()), markup=False)

    def save(self) -> None:
        runfile.write(self.planned.data, self.document())


async def _supervise(planned: mesh.Mesh, start_limit_s: float) -> int:
    """Run the mesh until a signal asks for its end; the exit status."""
    run = _Run(planned, datetime.now(UTC))
    supervisor = Supervisor(planned.programs, is_ready=is_ready, on_change=run.on_change)
    run.supervisor = supervisor
    stop_asked = asyncio.Event()
    _on_signals(lambda: _stop_or_kill(stop_asked, supervisor))
    began = time.monotonic()
    status = 0
    try:
        await _unless(stop_asked, _started(supervisor, run, start_limit_s))
        if not stop_asked.is_set():
            run.change(State.READY)
            flags = client_flags(planned.data, planned.url)
            display.show_ready(
                run.document(), time.monotonic() - began, detached=False, flags=flags
            )
            await _unless(stop_asked, supervisor.watch())
    except Failure as failure:
        status = failure.status
        err.print(failure.message, style="red", markup=False)
        run.change(State.FAILED, failure.message)
    await _stop(supervisor, run)
    return status


async def _started(supervisor: Supervisor, run: _Run, limit_s: float) -> None:
    with display.live_table(lambda: run.document()["services"]):
        await supervisor.start(limit_s=limit_s)


async def _stop(supervisor: Supervisor, run: _Run) -> None:
    failed = run.state is State.FAILED
    if not failed:
        err.print("Stopping; Ctrl-C again ends everything at once.", style="dim")
        run.change(State.STOPPING)
    await supervisor.stop()
    if not failed:
        run.change(State.STOPPED)


async def _unless(stop_asked: asyncio.Event, work: object) -> None:
    """Do `work` until it ends or the event is set, whichever comes first."""
    doing = asyncio.ensure_future(work)  # type: ignore[call-overload]
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


def client_flags(data: Path, url: str) -> str:
    """What a client command needs to find this mesh, as it would be typed; often nothing."""
    return "" if data == default_data_dir().expanduser().resolve() else f" --url {url}"


def _up_in_background(data: Path, port: int, replicas: list[str], limit_s: float) -> None:
    (data / "logs").mkdir(parents=True, exist_ok=True)
    log = data / "logs" / "up.log"
    with suppress(FileNotFoundError):
        log.replace(log.with_name("up.log.1"))
    argv = [sys.executable, "-m", "raglan_cli", "up", "--data", str(data), "--port", str(port)]
    argv += ["--start-limit", str(limit_s)]
    argv += [word for option in replicas for word in ("--replicas", option)]
    began = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - our own command line
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        document = _wait_for_background(child, data, log)
    except KeyboardInterrupt:
        child.terminate()
        child.wait(_STOP_LIMIT_S)
        raise Failure("Stopped before it was ready.", status=INTERRUPTED) from None
    flags = client_flags(data, document["url"])
    display.show_ready(document, time.monotonic() - began, detached=True, flags=flags)


def _wait_for_background(child: subprocess.Popen[bytes], data: Path, log: Path) -> MeshDocument:
    """The mesh once it is ready. The child itself bounds the wait (--start-limit)."""

    def current() -> MeshDocument | None:
        document = runfile.read(data)
        return document if document and document["pid"] == child.pid else None

    with display.live_table(lambda: (current() or {"services": []})["services"]):
        while True:
            ended = child.poll() is not None
            document = current()
            if document and document["state"] == State.READY:
                return document
            if ended:
                said = log.read_text(encoding="utf-8", errors="replace").strip()
                reason = document and document["reason"]
                raise Failure(reason or said or f"raglan up ended; see {log}")
            time.sleep(0.1)


def _terminate(data: Path, pid: int) -> None:
    """End the supervisor; with -9 (its children die with it on Linux) if it does not listen."""
    for number, limit_s in ((signal.SIGTERM, _STOP_LIMIT_S), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise Failure(f"The mesh on {data} (pid {pid}) belongs to another user.") from None
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if runfile.running_pid(data) != pid:
                return
            time.sleep(0.05)
    raise Failure(f"The mesh on {data} (pid {pid}) does not end.")


def _wait_until_gone(pids: list[int]) -> None:
    """Wait for processes of ours; end those that are still there after a while."""
    found = [process for pid in pids if (process := _our_process(pid))]
    until = time.monotonic() + _GONE_LIMIT_S
    while found := [process for process in found if _runs(process)]:
        if time.monotonic() > until:
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            return
        time.sleep(0.02)


def _our_process(pid: int) -> psutil.Process | None:
    """The process, if it is still one of a mesh: pids are used again."""
    try:
        process = psutil.Process(pid)
        return process if any("raglan" in word for word in process.cmdline()) else None
    except psutil.Error:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
