"""The MCP server in the gateway's life: shutdown, leavers, limits, many clients."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import gateway_serving
import httpx
from gateway_serving import serving, until
from raglan_gateway.api import sse
from raglan_gateway.api.mcp import McpServer
from raglan_gateway.api.mcp_tools import ListOutput

HEADERS = {"Accept": "application/json, text/event-stream"}


def message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


CALL = message("tools/call", {"name": "list_collections", "arguments": {}})


def make_tool_run(gateway: gateway_serving.Gateway, run: Any) -> None:
    """Have `list_collections` do `run`."""
    (server,) = (
        route.endpoint for route in gateway.app.routes if getattr(route, "path", "") == "/mcp"
    )
    assert isinstance(server, McpServer)
    server._tools["list_collections"] = replace(server._tools["list_collections"], run=run)


async def test_shutdown_ends_a_call_that_runs() -> None:
    running = asyncio.Event()

    async def forever(*_: Any) -> None:
        running.set()
        await asyncio.Event().wait()

    async with (
        serving(shutdown_drain_s=0, shutdown_grace_s=0.1) as (gateway, task),
        httpx.AsyncClient(timeout=10) as client,
    ):
        make_tool_run(gateway, forever)
        call = asyncio.create_task(client.post(f"{gateway.url}/mcp", json=CALL, headers=HEADERS))
        await asyncio.wait_for(running.wait(), 10)
        gateway.stopping.set()
        reply = await call
        assert reply.status_code == 503
        assert await asyncio.wait_for(task, 10) == 0


async def test_a_tool_sees_that_its_client_left() -> None:
    running, left = asyncio.Event(), asyncio.Event()

    async def watch(_: Any, request: Any) -> Any:
        running.set()
        await sse.wait_for_disconnect(request.receive)
        left.set()
        return ListOutput(collections=[]), ""

    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:
        make_tool_run(gateway, watch)
        call = asyncio.create_task(client.post(f"{gateway.url}/mcp", json=CALL, headers=HEADERS))
        await asyncio.wait_for(running.wait(), 10)
        call.cancel()
        await asyncio.wait_for(left.wait(), 10)


async def test_a_service_that_is_away_is_an_error_of_the_tool() -> None:
    async with serving() as (gateway, _), httpx.AsyncClient(timeout=40) as client:
        reply = await client.post(f"{gateway.url}/mcp", json=CALL, headers=HEADERS)
    result = reply.json()["result"]
    assert result["isError"]
    assert result["_meta"]["raglan/error"]["type"] == "unavailable"


async def test_an_unexpected_error_keeps_its_details() -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("secret detail")

    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:
        make_tool_run(gateway, fail)
        reply = await client.post(f"{gateway.url}/mcp", json=CALL, headers=HEADERS)
    assert reply.json()["result"]["isError"]
    assert "secret" not in reply.text


async def test_clients_that_begin_and_never_return_leave_nothing() -> None:
    start = message(
        "initialize",
        {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    )
    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:

        async def begin() -> httpx.Response:
            return await client.post(f"{gateway.url}/mcp", json=start, headers=HEADERS)

        await begin()
        before = len(asyncio.all_tasks())
        for _ in range(10):
            replies = await asyncio.gather(*(begin() for _ in range(20)))
            assert {reply.status_code for reply in replies} == {200}
            assert all("Mcp-Session-Id" not in reply.headers for reply in replies)
        # A connection of the pool has a task while it is open.
        await until(lambda: len(asyncio.all_tasks()) <= before + 25, "their tasks have ended")


async def test_the_rate_limit_holds_for_it() -> None:
    async with (
        serving(rate_limit_per_minute=1) as (gateway, _),
        httpx.AsyncClient(timeout=10) as client,
    ):
        listing = message("tools/list", {})
        replies = [
            await client.post(f"{gateway.url}/mcp", json=listing, headers=HEADERS) for _ in range(2)
        ]
    assert [reply.status_code for reply in replies] == [200, 429]
    assert int(replies[1].headers["Retry-After"]) > 0
