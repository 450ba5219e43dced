"""A Ray cluster of several nodes on this machine, each a real raylet with its workers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ports
import psutil

_START_S: Final = 120.0
_STORE_BYTES: Final = 80_000_000
"""The least that Ray takes."""
_ACTOR: Final = "ray::MapWorker"


class Node:
    """One node, with one CPU and so one worker."""

    def __init__(self, folder: Path, variables: Mapping[str, str], *where: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where]
        command += ["--num-cpus=1", f"--object-store-memory={_STORE_BYTES}"]
        command += ["--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # ports of the kernel's choice
        self._log = folder / f"node-{time.time_ns()}.log"
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | variables,
            )
        self._known: dict[int, psutil.Process] = {}

    def wait(self) -> None:
        """Wait until it has started."""
        until = time.monotonic() + _START_S
        while "Ray runtime started" not in (said := self._log.read_text()):
            assert self._process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.1)

    def actors(self) -> list[psutil.Process]:
        """Its processes that work on a dataset."""
        return [each for each in self._processes() if _name(each).startswith(_ACTOR)]

    def kill(self) -> None:
        """End it at once, with all that it started."""
        processes = self._processes()
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=10)
        self._process.wait()

    def _processes(self) -> Sequence[psutil.Process]:
        # Those seen before too: what lost its parent is a child of another process by now.
        try:
            own = psutil.Process(self._process.pid)
            found = [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._known |= {each.pid: each for each in found}
        return [each for each in self._known.values() if each.is_running()]


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    address: str
    nodes: list[Node]
    """The head first."""
    variables: Mapping[str, str]
    """Of the environment of whoever connects to it."""


@contextmanager
def running(nodes: int) -> Iterator[Cluster]:
    """Run a cluster until the block ends."""
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets take short paths only
    address = f"127.0.0.1:{ports.free_port()}"
    started: list[Node] = []
    try:
        port = address.rpartition(":")[2]
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        started.append(Node(folder, variables, *head))
        started[0].wait()
        for _ in range(1, nodes):
            started.append(Node(folder, variables, f"--address={address}"))
        for node in started:
            node.wait()
        yield Cluster(address, started, variables)
    finally:
        for node in reversed(started):
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _name(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""
