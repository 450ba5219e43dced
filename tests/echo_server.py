"""A gRPC server that echoes bytes, for tests of load generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from callers import Target

PATH = "/bench.Echo/Echo"


@asynccontextmanager
async def server(answer: grpc.StatusCode | None = None) -> AsyncIterator[Echo]:
    """A gRPC server that echoes bytes, or refuses with `answer`."""
    echo = Echo(answer)
    serving = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo.answer)
    serving.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),)
    )
    echo.port = serving.add_insecure_port("127.0.0.1:0")
    await serving.start()
    try:
        yield echo
    finally:
        await serving.stop(None)


class Echo:
    def __init__(self, refusal: grpc.StatusCode | None) -> None:
        self.refusal = refusal
        self.port = 0
        self.seen: list[bytes] = []
        self.running = self.most = 0
        self.released = asyncio.Event()
        self.released.set()

    async def answer(
        self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        self.seen.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.released.wait()
        finally:
            self.running -= 1
        if self.refusal is not None:
            await context.abort(self.refusal)
        return request

    @property
    def target(self) -> Target:
        return Target("grpc", self.port, PATH)
