"""`raglan-health`: an exit status from a server's health."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from certificates import Authority
from ports import free_port
from raglan.health import Health
from raglan.rpc import probe
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings

LIMIT_S = 20


@asynccontextmanager
async def serving(*, loads: bool = True) -> AsyncIterator[tuple[str, list[Health]]]:
    """A server's address, and its health to be changed; with `loads` False its start never ends."""
    health = [Health.SERVING]

    async def start() -> None:
        if not loads:
            await asyncio.Event().wait()

    service = Service(
        "raglan.v1.EmbedderService", lambda server: None, start=start, health=lambda: health[-1]
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    starting = asyncio.create_task(server.start())
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (starting.done() if loads else server.port):
                await asyncio.sleep(0.01)
        yield f"127.0.0.1:{server.port}", health
    finally:
        starting.cancel()
        await asyncio.wait((starting,))
        await server.stop()


async def ask(address: str, service: str = "", *, live: bool = False) -> str:
    return await asyncio.to_thread(
        probe.problem, address, service=service, live=live, timeout_s=LIMIT_S
    )


@pytest.mark.parametrize("service", ["", "embedder"])
async def test_a_serving_process_is_well(service: str) -> None:
    async with serving() as (address, _):
        assert await ask(address, service) == ""


async def test_a_process_that_loads_is_alive_and_not_ready() -> None:
    async with serving(loads=False) as (address, _):
        assert await ask(address) == f"{address} is NOT_SERVING."
        assert await ask(address, live=True) == ""


@pytest.mark.parametrize(
    ("state", "alive"), [(Health.STALLED, False), (Health.AWAY, True), (Health.SERVING, True)]
)
async def test_only_a_lack_of_progress_ends_liveness(state: Health, alive: bool) -> None:
    """A restart does not bring a model server back that is elsewhere."""
    async with serving() as (address, health):
        health.append(state)
        ready = state is Health.SERVING
        async with asyncio.timeout(LIMIT_S):
            while ((await ask(address)) == "") is not ready:
                await asyncio.sleep(0.01)
        assert ((await ask(address, live=True)) == "") is alive


async def test_an_unknown_service_is_named() -> None:
    async with serving() as (address, _):
        found = await ask(address, "reranker")
    assert "NOT_FOUND" in found
    assert "raglan.v1.RerankerService" in found


async def test_nobody_there_is_said_in_one_line() -> None:
    found = await ask(f"127.0.0.1:{free_port()}")
    assert "UNAVAILABLE" in found
    assert "\n" not in found


async def test_mutual_tls_uses_the_certificate_of_the_process_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in Authority().write(tmp_path, "embedder").items():
        monkeypatch.setenv(name, value)
    async with serving() as (address, _):
        assert await ask(address, "embedder") == ""
        assert "--service" in await ask(address)
        assert "UNAVAILABLE" in await ask(address, "reranker")


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b'{"ready": false}')

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_http_is_well_by_its_status(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe.problem(f"{gateway}/readyz") == ""
    assert probe.problem(f"{gateway}/startupz").endswith('status 503: {"ready": false}')


@pytest.mark.parametrize(("path", "status"), [("/readyz", 0), ("/other", 1)])
def test_the_command_exits_with_the_answer(
    gateway: str,
    path: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["raglan-health", f"{gateway}{path}"])
    with pytest.raises(SystemExit) as ended:
        probe.main()
    assert ended.value.code == status
    assert ("status 503" in capsys.readouterr().err) is bool(status)
