import asyncio
import json

import pytest
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan_cli import foreground
from raglan_cli.failure import Failure
from raglan_cli.mesh import Program
from raglan_cli.readiness import is_ready, not_up_yet


def program(port, tmp_path):
    return Program("embedder", 1, f"127.0.0.1:{port}", (), {}, tmp_path / "log")


@pytest.fixture
async def loading():
    """A service that listens, and serves once its event is set."""
    loaded = asyncio.Event()
    service = Service("raglan.v1.Fake", lambda server: None, start=loaded.wait)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(30):
        while not server.port:
            await asyncio.sleep(0.01)
    yield server.port, loaded, starting
    loaded.set()
    await starting
    await server.stop()


async def test_a_service_is_ready_once_it_serves_not_once_it_listens(loading, tmp_path):
    port, loaded, starting = loading
    assert not await is_ready(program(port, tmp_path))
    loaded.set()
    await starting
    assert await is_ready(program(port, tmp_path))


async def test_a_proxy_in_the_environment_is_not_asked(loading, tmp_path, monkeypatch):
    port, loaded, starting = loading
    loaded.set()
    await starting
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await is_ready(program(port, tmp_path))


async def test_nothing_that_listens_is_not_ready(tmp_path):
    assert not await is_ready(program(1, tmp_path))


@pytest.fixture
async def starting_gateway():
    """A gateway that waits for the services of a list, which the test changes."""
    waiting_for = ["embedder"]

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        status = "503 Service Unavailable" if waiting_for else "200 OK"
        body = json.dumps({"started": not waiting_for, "waiting_for": waiting_for})
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", waiting_for


class Supervisor:
    """Everything is ready at once."""

    def __init__(self, url):
        self._gateway = url.removeprefix("http://")

    def own_addresses(self, service):
        assert service == "gateway"
        return [self._gateway]

    async def start(self, *, limit_s):
        pass


async def test_a_start_is_over_once_the_gateway_has_seen_everything(starting_gateway):
    url, waiting_for = starting_gateway
    starting = asyncio.create_task(foreground._start(Supervisor(url), 30))
    while await not_up_yet(url) != ["embedder"]:
        await asyncio.sleep(0.01)
    assert not starting.done()
    waiting_for.clear()
    async with asyncio.timeout(20):
        await starting


async def test_a_start_that_takes_too_long_says_who_is_missing(starting_gateway):
    url, _ = starting_gateway
    with pytest.raises(Failure, match="does not reach embedder"):
        await foreground._start(Supervisor(url), 0.1)


async def test_a_gateway_that_does_not_answer_is_not_up_yet():
    assert await not_up_yet("http://127.0.0.1:1") == ["gateway"]
