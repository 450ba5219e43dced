"""OTLP/HTTP on a listener of its own: spans of what does not answer `TraceService`.

An engine of another vendor (vLLM's server), a program that calls the gateway. All that it takes has
a bound: bytes, packed and unpacked, requests at a time, bytes and spans a second. What is refused
for its amount may be sent again (429, 503); what cannot be read may not (400, 413).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from raglan.background import keep_running
from raglan.cross_origin import CrossOriginPolicy
from raglan.errors import InvalidInput, Overloaded, PayloadTooLarge, RaglanError, Unavailable
from raglan.errors import wire as wire_of
from raglan.rpc.addresses import format_address, listening_socket
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.server import ServerState

from raglan_tracer import otlp
from raglan_tracer.otlp import SentSpan
from raglan_tracer.sampler import TokenBucket

log: Final = structlog.get_logger()

PATH: Final = "/v1/traces"
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a body, and of what it unpacks to."""

SPANS_A_SECOND: Final = 2_000
BYTES_A_SECOND: Final = 2 * 1024 * 1024
_BURST_S: Final = 10
_JSON_COSTS: Final = 4
"""Times what protobuf costs to read."""

REQUESTS: Final = 16
"""At a time; one of them is read, the others wait for it or for their bytes."""

_BODY_S: Final = 5.0
_IDLE_S: Final = 30
_MAX_AGE_S: Final = 60.0
"""Of a connection; a client opens another one."""

_SWEEP_S: Final = 1.0
_LISTEN_AGAIN_S: Final = 5.0
_GRPC_CODES: Final = {
    "INVALID_ARGUMENT": 3,
    "OUT_OF_RANGE": 11,
    "RESOURCE_EXHAUSTED": 8,
    "PERMISSION_DENIED": 7,
}
_UNAVAILABLE: Final = 14


class Receiver:
    """The ASGI application. `take` gets the spans, and returns how many of them it refused."""

    def __init__(
        self,
        take: Callable[[Sequence[SentSpan]], Awaitable[int]],
        cross_origin: CrossOriginPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accepted = 0
        """Spans taken in."""
        self.refused = 0
        """Spans that were read and not taken in."""
        self._take = take
        self._cross_origin = cross_origin
        self._spans = TokenBucket(SPANS_A_SECOND, SPANS_A_SECOND * _BURST_S, clock=clock)
        self._bytes = TokenBucket(BYTES_A_SECOND, BYTES_A_SECOND * _BURST_S, clock=clock)
        self._requests = 0
        self._reading = asyncio.Semaphore(1)
        self.app = Starlette(routes=[Route(PATH, self._export, methods=["POST"])])

    async def _export(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        answered_in = kind if kind == otlp.JSON else otlp.PROTOBUF
        self._requests += 1
        try:
            self._cross_origin.check(request.scope)
            if self._requests > REQUESTS:
                raise Unavailable(f"{REQUESTS} requests are in progress.", retry_after_s=1)
            reply = await self._taken(request, kind)
        except RaglanError as error:
            return _refusal(error, answered_in)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            self._requests -= 1
        return Response(otlp.encoded(reply, answered_in), media_type=answered_in)

    async def _taken(self, request: Request, kind: str) -> ExportTraceServiceResponse:
        if kind not in (otlp.PROTOBUF, otlp.JSON):
            raise InvalidInput(
                f"Content-Type is {kind[:80]!r}; send {otlp.PROTOBUF} or {otlp.JSON}."
            )
        body = await _body(request)
        async with self._reading:
            body = otlp.unpacked(body, request.headers.get("content-encoding", ""), MAX_BYTES)
            cost = len(body) * (_JSON_COSTS if kind == otlp.JSON else 1)
            self._afford(self._bytes, cost, f"{BYTES_A_SECOND} bytes")
            # In a thread, because JSON of this size is read for half a second.
            spans, too_large = await asyncio.to_thread(otlp.read_spans, body, kind)
        self._afford(self._spans, len(spans) + too_large, f"{SPANS_A_SECOND} spans")
        refused = too_large + await self._take(spans)
        self.accepted += len(spans) + too_large - refused
        self.refused += refused
        reply = ExportTraceServiceResponse()
        if refused:
            reply.partial_success.rejected_spans = refused
            reply.partial_success.error_message = (
                "Their ids are not ids, they are too large, or their trace has too many."
            )
        return reply

    def _afford(self, allowance: TokenBucket, cost: int, rate: str) -> None:
        if not allowance.try_acquire(cost):
            raise Overloaded(f"The limit is {rate} a second; send fewer.", retry_after_s=1)


class Listener:
    """Serves a receiver on an address of its own.

    An address that is in use is tried again: a tracer that is being replaced gives it to the next.
    """

    def __init__(self, receiver: Receiver, host: str, port: int) -> None:
        """Listen nowhere before `start`.

        Args:
            receiver: what serves.
            host: its address.
            port: 0 takes a free one; a negative one listens nowhere.
        """
        self.address: tuple[str, int] | None = None
        """Listening address; None while it does not listen."""
        self._receiver = receiver
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen, now or as soon as the address is free."""
        if self._port >= 0:
            self._task = asyncio.create_task(self._serve(), name="receive traces")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is None:
            return
        if self._server is None:
            self._task.cancel()
        else:
            self._server.should_exit = True
        await asyncio.wait((self._task,))

    async def _serve(self) -> None:
        listening = await self._bound()
        self._server = server = _Server(_config(self._receiver.app))
        host, port = self.address = listening.getsockname()[:2]
        log.info("traces are received", address=format_address(host, port))
        sweeping = asyncio.create_task(
            keep_running("close old connections", partial(_close_old, server.server_state))
        )
        try:
            await server.serve([listening])
        finally:
            self.address = None
            sweeping.cancel()
            listening.close()

    async def _bound(self) -> socket.socket:
        warned = False
        while True:
            try:
                return listening_socket(self._host, self._port)
            except OSError as error:
                if not warned:
                    log.warning(
                        "traces are not received; trying again",
                        address=format_address(self._host, self._port),
                        reason=error.strerror,
                        setting="RAGLAN_TRACER_OTLP_PORT",
                    )
                warned = True
            await asyncio.sleep(_LISTEN_AGAIN_S)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # which limits the size of a request's head
        ws="none",
        access_log=False,
        log_config=None,
        lifespan="off",
        limit_concurrency=4 * REQUESTS,
        server_header=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=1,
    )


async def _close_old(state: ServerState) -> None:
    """Close connections past their age, after their reply where one is due, until cancelled.

    uvicorn sets no limit on how long the head of a request may take to arrive.
    """
    since: dict[Any, float] = {}
    while True:
        await asyncio.sleep(_SWEEP_S)
        now = time.monotonic()
        since = {connection: since.get(connection, now) for connection in state.connections}
        for connection, opened in since.items():
            if now - opened > _MAX_AGE_S:
                connection.shutdown()


async def _body(request: Request) -> bytes:
    """The body, in time and within bounds."""
    too_large = PayloadTooLarge(f"The body is larger than {MAX_BYTES} bytes; send fewer spans.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BYTES:
        raise too_large
    parts, read = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                read += len(part)
                if read > MAX_BYTES:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise InvalidInput(f"The body took longer than {_BODY_S:g} s to arrive.") from None
    return b"".join(parts)


def _refusal(error: RaglanError, kind: str) -> Response:
    """An error as OTLP has it. 400 rather than our 422: exporters know 400 as final."""
    row = wire_of(error)
    status = 400 if row.http == 422 else row.http
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    body = otlp.problem(_GRPC_CODES.get(row.status, _UNAVAILABLE), error.message)
    return Response(otlp.encoded(body, kind), status, headers, media_type=kind)
