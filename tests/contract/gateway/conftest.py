"""A real Redis that a test may kill, stop and flush, and databases of a gateway."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import ports
import pytest
import sqlalchemy as sa
from postgres_server import PostgresServer
from pydantic import SecretStr
from raglan.database import url_of

START_S = 10


class RedisServer:
    """One `redis-server` on a loopback port that stays the same when it is started again."""

    def __init__(self, program: str, folder: Path, *, password: str = "") -> None:
        self._folder = folder
        self.port = ports.free_port()
        self._password = password
        self._command = [
            *(program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
            *("--save", "", "--appendonly", "no", "--requirepass", password),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def url(self) -> SecretStr:
        """What a gateway is told."""
        return SecretStr(f"redis://:{self._password}@127.0.0.1:{self.port}/0")

    async def start_again(self) -> None:
        """After `kill`: an empty one, on the same port."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                pytest.fail(
                    "redis-server did not start:\n" + (self._folder / "redis.log").read_text()
                )
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once: from now on it refuses."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGSTOP: it accepts connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def do(self, command: str) -> str:
        """The reply to an inline command."""
        return await asyncio.to_thread(self._do, command)

    def _do(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if self._password:
                command = f"AUTH {self._password}\r\n{command}"
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
        return reply.decode()

    def _answers(self) -> bool:
        try:
            return "PONG" in self._do("PING")
        except OSError:
            return False


def _program() -> str:
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail(
            "redis-server is missing, and these tests need a real one: "
            "apt-get install redis-server (Debian, Ubuntu), brew install redis (macOS)."
        )
    return program


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis without a password."""
    server = RedisServer(_program(), tmp_path)
    yield server
    server.kill()


@pytest.fixture
def guarded_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with a password."""
    server = RedisServer(_program(), tmp_path, password="right-one")
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a gateway that is not given another."""
    folder = tmp_path / "gateway"
    monkeypatch.setenv("RAGLAN_GATEWAY_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'own.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"test_{time.monotonic_ns()}"
    engine = sa.create_engine(url_of(server.url, tmp_path), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.url.replace("/postgres", f"/{name}")
