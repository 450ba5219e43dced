import asyncio

import pytest
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan_cli.mesh import Program
from raglan_cli.readiness import is_ready


def program(port, tmp_path):
    return Program("embedder", 1, f"127.0.0.1:{port}", (), {}, tmp_path / "log")


@pytest.fixture
async def loading():
    """A service that listens, and serves once its event is set."""
    loaded = asyncio.Event()
    service = Service("raglan.v1.Fake", lambda server: None, start=loaded.wait)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(10):
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
