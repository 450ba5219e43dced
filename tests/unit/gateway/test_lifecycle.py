"""The gateway's end, over real sockets: who is still served, who is told what, when it is over."""

from __future__ import annotations

import asyncio
import socket

import gateway_serving
import httpx
import ports
import pytest
from raglan_gateway import app, lifecycle
from raglan_gateway.settings import GatewaySettings


async def test_while_it_drains_it_is_not_ready_but_serves_and_asks_to_reconnect() -> None:
    async with (
        gateway_serving.serving(shutdown_drain_s=0.6, shutdown_grace_s=0.2) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        before = await client.get("/healthz")
        gateway.stopping.set()
        await asyncio.sleep(0.05)
        kept, fresh = await client.get("/readyz"), await client.get("/healthz")
    assert "connection" not in before.headers
    assert (kept.status_code, kept.json()["draining"]) == (503, True)
    assert kept.headers["connection"] == "close"
    assert (fresh.status_code, fresh.headers["connection"]) == (200, "close")


async def test_after_the_drain_it_accepts_nobody() -> None:
    async with (
        gateway_serving.serving(shutdown_drain_s=0, shutdown_grace_s=5) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        running = asyncio.create_task(client.get("/slow"))
        await gateway_serving.until(lambda: gateway.running, "the request runs")
        gateway.stopping.set()
        await asyncio.sleep(0.2)
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as other:
                await other.get(f"{gateway.url}/healthz")
        gateway.release.set()
        reply = await running
    assert reply.json() == "whole"


async def test_a_request_that_outlasts_the_grace_hears_503_in_the_envelope() -> None:
    async with (
        gateway_serving.serving(shutdown_drain_s=0, shutdown_grace_s=0.2) as (gateway, task),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        running = asyncio.create_task(client.get("/slow"))
        await gateway_serving.until(lambda: gateway.running, "the request runs")
        gateway.stopping.set()
        reply = await running
        await asyncio.wait_for(task, gateway_serving.LIMIT_S)
    error = reply.json()["error"]
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
    assert error["message"] == "The gateway is shutting down; try again."
    assert error["request_id"] == reply.headers["x-request-id"]


async def test_a_stream_that_outlasts_the_grace_ends_in_an_error_event() -> None:
    async with (
        gateway_serving.serving(shutdown_drain_s=0, shutdown_grace_s=0.2) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        running = asyncio.create_task(client.get("/stream"))
        await gateway_serving.until(lambda: gateway.running, "the stream runs")
        gateway.stopping.set()
        reply = await running
    name, data = gateway_serving.events(reply.text)[-1]
    assert name == "error"
    assert data == {
        "type": "unavailable",
        "code": "UNAVAILABLE",
        "message": "The gateway is shutting down; try again.",
        "request_id": reply.headers["x-request-id"],
        "retryable": True,
    }
    assert gateway.closed == 1


async def test_a_stream_that_ends_within_the_grace_is_whole() -> None:
    async with (
        gateway_serving.serving(shutdown_drain_s=0, shutdown_grace_s=5) as (gateway, task),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        running = asyncio.create_task(client.get("/stream"))
        await gateway_serving.until(lambda: gateway.running, "the stream runs")
        gateway.stopping.set()
        await asyncio.sleep(0.2)
        assert not task.done()
        gateway.release.set()
        reply = await running
    assert gateway_serving.events(reply.text)[-1] == ("done", {})


async def test_a_stop_during_the_start_ends_it() -> None:
    settings = GatewaySettings(port=ports.free_port(), **gateway_serving.NOWHERE)
    stopping = asyncio.Event()
    stopping.set()
    status = await asyncio.wait_for(
        lifecycle.serve(app.build, settings, stopping), gateway_serving.LIMIT_S
    )
    assert status == 0


async def test_a_taken_port_ends_the_start_with_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = GatewaySettings(port=taken.getsockname()[1], **gateway_serving.NOWHERE)
        assert await lifecycle.serve(app.build, settings, asyncio.Event()) == 1


@pytest.mark.slow
async def test_a_gateway_is_replaced_on_its_socket_without_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as shared:
        port = shared.getsockname()[1]

        def inherited() -> str:
            return str(socket.dup(shared.fileno()))

        statuses: list[int] = []
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                async with httpx.AsyncClient() as client:
                    statuses.append(
                        (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code
                    )

        quick = {"port": port, "shutdown_drain_s": 0.05, "shutdown_grace_s": 1}
        async with gateway_serving.serving(listen_fd=inherited(), **quick) as (first, ending):
            asking = [asyncio.create_task(ask()) for _ in range(4)]
            async with gateway_serving.serving(listen_fd=inherited(), **quick):
                first.stopping.set()
                await asyncio.wait_for(ending, gateway_serving.LIMIT_S)
                seen = len(statuses)
                await gateway_serving.until(
                    lambda: len(statuses) > seen + 20, "the second one answers"
                )
                over.set()
                await asyncio.gather(*asking)
    assert set(statuses) == {200}


async def test_what_is_no_listening_socket_is_refused_by_the_name_of_its_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = GatewaySettings(listen_fd="0", **gateway_serving.NOWHERE)
    assert await lifecycle.serve(app.build, settings, asyncio.Event()) == 1
    said = capsys.readouterr()
    assert "RAGLAN_GATEWAY_LISTEN_FD" in said.out + said.err
