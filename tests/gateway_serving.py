"""A gateway that serves in the process of the test, over real sockets, on routes that take time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import ports
from fastapi import FastAPI
from raglan.lifecycle import Lifecycle
from raglan_gateway import app, lifecycle
from raglan_gateway.api import schemas, sse
from raglan_gateway.settings import GatewaySettings

NOWHERE: dict[str, Any] = {
    f"{name}_address": "127.0.0.1:1"
    for name in ("embedder", "retriever", "reranker", "generator", "ingester")
}
LIMIT_S = 10


@dataclass
class Gateway:
    """A gateway that serves in this process, with routes that take their time."""

    settings: GatewaySettings
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    produced: int = 0
    closed: int = 0
    app: FastAPI = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def build(self, settings: GatewaySettings, life: Lifecycle) -> FastAPI:
        built = app.build(settings, life)
        built.add_api_route("/slow", self.slow)
        built.add_api_route("/stream", self.stream)
        built.add_api_route("/flood", self.flood)
        self.app = built
        return built

    async def slow(self) -> str:
        self.running += 1
        await self.release.wait()
        return "whole"

    async def stream(self) -> Any:
        return sse.response(self._ticks(), heartbeat_s=60)

    async def flood(self) -> Any:
        return sse.response(self._flood(), heartbeat_s=60)

    async def _ticks(self) -> AsyncGenerator[sse.Event, None]:
        self.running += 1
        try:
            while not self.release.is_set():
                yield sse.Event("delta")
                await asyncio.sleep(0.01)
            yield sse.Event("done")
        finally:
            self.closed += 1

    async def _flood(self) -> AsyncGenerator[sse.Event, None]:
        long = schemas.StreamDelta(text="y" * 10_000)
        try:
            while True:
                self.produced += 1
                await asyncio.sleep(0)  # as every read from another service
                yield sse.Event("delta", long)
        finally:
            self.closed += 1


async def until(condition: Any, what: str, within_s: float = LIMIT_S) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Gateway, asyncio.Task[int]]]:
    options.setdefault("port", ports.free_port())
    settings = GatewaySettings(**NOWHERE | options)
    gateway = Gateway(settings)
    task = asyncio.create_task(lifecycle.serve(gateway.build, settings, gateway.stopping))
    try:
        async with httpx.AsyncClient() as client:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        await client.get(f"{gateway.url}/healthz")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.01)
        yield gateway, task
    finally:
        gateway.stopping.set()
        gateway.release.set()
        assert await asyncio.wait_for(task, LIMIT_S) == 0


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
