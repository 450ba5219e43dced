"""Run files of a mesh in its data folder: a lock, and a file that lists the processes.

`DIR/run/up.lock` is held (flock) for as long as the supervisor lives, however it ends, so a held
lock is the proof that a mesh runs. `DIR/run/mesh.json` lists its addresses.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NotRequired, TypedDict, cast

from raglan_cli.failure import Failure

RESTART_SIGNAL: Final = signal.SIGUSR1
"""Signal to the supervisor that a restart request exists."""

_LOCK_ATTEMPTS: Final = 5
"""`running_pid` holds the lock for an instant; a start must not take that for a mesh."""


class ServiceEntry(TypedDict):
    """One process, as mesh.json shows it."""

    service: str
    replica: int
    address: str
    own_address: NotRequired[str]
    """Where this process alone answers; of gateways that share a socket not `address`."""
    pid: int | None
    state: str
    since: float
    """Start of the state, in seconds since the epoch."""
    ready_after_s: float | None
    restarts: int
    reason: str | None
    """Reason of its last end."""
    wait_s: float
    """Delay before its restart, in seconds."""
    log: str


class RestartRequest(TypedDict):
    """A restart request to the supervisor."""

    id: str
    services: list[str]
    """None means all."""


class RestartEntry(TypedDict):
    """A requested rolling restart, as mesh.json shows it."""

    id: str
    state: str
    """"running", "done" or "failed"."""
    doing: str
    """The process that is restarted now, or was last."""
    gap: str
    """Gap for callers meanwhile; empty for none."""
    reason: str | None


class MeshDocument(TypedDict):
    """The whole of mesh.json."""

    url: str
    pid: int
    version: str
    state: str
    reason: str | None
    started_at: str
    data: str
    stop_s: float
    """The longest that its end may take."""
    restart: RestartEntry | None
    """The last one."""
    otlp: NotRequired[str | None]
    """URL at which spans of others are received; None where they are not."""
    services: list[ServiceEntry]


def write(data: Path, document: MeshDocument) -> None:
    """Replace mesh.json as a whole: a reader sees the old one or the new one."""
    path = _file(data)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
    temporary.replace(path)


def read(data: Path) -> MeshDocument | None:
    """The last mesh on `data`, running or not; None when there was none."""
    try:
        return cast("MeshDocument", json.loads(_file(data).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_running(data: Path) -> MeshDocument | None:
    """The mesh that runs on `data` now."""
    pid = running_pid(data)
    document = read(data)
    return document if document and document["pid"] == pid else None


def request_restart(data: Path, pid: int, services: list[str]) -> str:
    """Ask the supervisor `pid` for a rolling restart; return its id in mesh.json.

    Raises:
        Failure: it belongs to another user, or has just ended.
    """
    request = RestartRequest(id=uuid.uuid4().hex, services=services)
    temporary = _restart_file(data).with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(request), encoding="utf-8")
        temporary.replace(_restart_file(data))
        os.kill(pid, RESTART_SIGNAL)
    except OSError as error:
        raise Failure(
            f"The mesh on {data} (pid {pid}) cannot be signalled: {error.strerror}."
        ) from None
    return request["id"]


def requested_restart(data: Path) -> RestartRequest | None:
    """Return the last restart request."""
    try:
        return cast("RestartRequest", json.loads(_restart_file(data).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def make_folders(data: Path) -> None:
    """Make what a start needs of `data`.

    Raises:
        Failure: it cannot be written to.
    """
    try:
        (data / "run").mkdir(parents=True, exist_ok=True)
        (data / "logs").mkdir(exist_ok=True)
        _lock(data).touch()
    except OSError as error:
        raise Failure(f"The data folder {data} cannot be written to: {error.strerror}.") from error


@contextmanager
def held_lock(data: Path) -> Iterator[None]:
    """Own `data` while the block runs.

    Raises:
        Failure: another mesh does; the message names its pid.
    """
    make_folders(data)
    with _lock(data).open("a+", encoding="utf-8") as file:
        for attempt in range(1, _LOCK_ATTEMPTS + 1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS:
                    raise Failure(_already_running(data)) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def running_pid(data: Path) -> int | None:
    """The supervisor's pid, or None when no mesh runs on `data`."""
    try:
        with _lock(data).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (OSError, ValueError):
        return None
    return None


def refuse_second(data: Path) -> None:
    """Raise Failure when a mesh runs on `data`."""
    if running_pid(data) is not None:
        raise Failure(_already_running(data))


def _already_running(data: Path) -> str:
    return (
        f"A mesh already runs on {data} (pid {running_pid(data)}). "
        f"Stop it with: raglan down --data {data}. Or give this one another folder: --data DIR."
    )


def _lock(data: Path) -> Path:
    return data / "run" / "up.lock"


def _restart_file(data: Path) -> Path:
    return data / "run" / "restart.json"


def _file(data: Path) -> Path:
    return data / "run" / "mesh.json"
