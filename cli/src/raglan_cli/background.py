"""The mesh in a process of its own: starting it so, and stopping it from elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from raglan_cli import display, log_files, runfile
from raglan_cli.failure import INTERRUPTED, Failure
from raglan_cli.runfile import MeshDocument
from raglan_cli.supervisor import State

_UNSTARTED_S: Final = 40.0
"""For the end of a mesh that was not up yet."""

_GONE_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.05


def start(data: Path, port: int, replicas: list[str], limit_s: float) -> None:
    """Run `raglan up` in the background; return when the mesh is ready.

    Raises:
        Failure: it did not get ready, for the reason that it gave.
    """
    runfile.make_folders(data)
    log = data / "logs" / "up.log"
    log_files.begin(log)
    argv = [sys.executable, "-m", "raglan_cli", "up", "--data", str(data), "--port", str(port)]
    argv += ["--start-limit", str(limit_s)]
    argv += [word for option in replicas for word in ("--replicas", option)]
    began = time.monotonic()
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own command line
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        document = _wait_until_ready(child, data, log)
    except KeyboardInterrupt:
        child.terminate()
        child.wait(_UNSTARTED_S)
        raise Failure("Stopped before it was ready.", status=INTERRUPTED) from None
    display.show_ready(document, time.monotonic() - began, detached=True)


def _wait_until_ready(child: subprocess.Popen[bytes], data: Path, log: Path) -> MeshDocument:
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
            time.sleep(_POLL_S)


def stop(data: Path, pid: int) -> None:
    """End the mesh on `data` that process `pid` supervises; return when all of it is gone.

    Raises:
        Failure: it belongs to another user, or does not end even when killed.
    """
    document = runfile.read(data)
    services = document["services"] if document else []
    _terminate(data, pid, document["stop_s"] if document else _UNSTARTED_S)
    _wait_until_gone([pid, *(service["pid"] for service in services if service["pid"])])


def _terminate(data: Path, pid: int, stop_s: float) -> None:
    """End the supervisor; with -9 (its children die with it on Linux) if it does not listen."""
    for number, limit_s in ((signal.SIGTERM, stop_s), (signal.SIGKILL, 5.0)):
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
            time.sleep(_POLL_S)
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
        time.sleep(_POLL_S)


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
