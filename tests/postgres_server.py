"""A real PostgreSQL that a test may stop and start again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import ports
import pytest


class PostgresServer:
    """One server on a loopback port that stays the same when it is started again."""

    def __init__(self) -> None:
        self._binaries = _binaries()
        # Not below pytest's folder: the server's user must be able to reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="raglan-postgres-"))
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            shutil.chown(self._folder, "postgres", "postgres")
        self.port = ports.free_port()
        self._run("initdb", "-D", self._data, "-U", "raglan", "--auth=trust")
        self.start()

    @property
    def url(self) -> str:
        """As the ingester is told."""
        return f"postgresql://raglan@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._folder} "
            "-c fsync=off -c max_connections=200"
        )
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-s", "-o", options, "start")

    def stop(self) -> None:
        """End it at once, as a crash does."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-s", "stop")

    def remove(self) -> None:
        """End it and delete its files."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-s", "stop", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.getuid() == 0:
            command = [
                *("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"),
                *command,
            ]
        ran = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        if check and ran.returncode:
            log = self._folder / "log"
            pytest.fail(f"{program} failed:\n{log.read_text() if log.exists() else ''}")


def _binaries() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.fail(
            "PostgreSQL's server is missing, and these tests need a real one: "
            "apt-get install postgresql (Debian, Ubuntu), brew install postgresql (macOS)."
        )
    return installed[-1].parent
