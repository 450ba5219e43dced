"""The border of every rpc: deadline demanded, context adopted, errors mapped, one log line."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from raglan import deadline, errors, tenancy
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, RaglanError
from raglan.lifecycle import Lifecycle
from raglan.rpc import tenant_calls
from raglan.rpc import tracing as rpc_tracing
from raglan.rpc.metrics import ServedCalls
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing

log: Final = structlog.get_logger()

_EXEMPT: Final = ("/grpc.health.", "/grpc.reflection.")
_END: Final = object()
_READ_OUT_S: Final = 1.0
"""Time for which a rejected upload is still read, in seconds."""

_SHAPES: Final = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler so that servicers can raise `RaglanError` and think of nothing else.

    Args:
        lifecycle: ends calls that outlast the process's grace.
        served: counts the calls.
    """

    def __init__(self, lifecycle: Lifecycle, served: ServedCalls) -> None:
        self._lifecycle = lifecycle
        self._served = served

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            self._served.unknown()
            return None
        if method.startswith(_EXEMPT):
            return handler
        wrap = _WRAPS[handler.request_streaming, handler.response_streaming]
        kind = _SHAPES[handler.request_streaming, handler.response_streaming]
        make: Callable[..., Handler] = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            wrap(getattr(handler, kind), method, self._lifecycle, self._served),
            request_deserializer=handler.request_deserializer
            and _decoder(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return `decode`, whose errors come as messages: gRPC would answer them with UNKNOWN."""

    def decode_or_refuse(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return InvalidInput(f"The request is no message of this method: {error}.")

    return decode_or_refuse


def _decoded(request: Any) -> Any:
    """Return a request.

    Raises:
        InvalidInput: it could not be decoded.
    """
    if isinstance(request, InvalidInput):
        raise request
    return request


async def _each_decoded(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _decoded(request)


def _wrap_unary(
    inner: Callable[[Any, Context], Awaitable[Any]],
    method: str,
    lifecycle: Lifecycle,
    served: ServedCalls,
) -> Any:
    async def call(request: Any, context: Context) -> Any:
        async with _border(method, context, served), lifecycle.cancel_on_shutdown():
            return await inner(_decoded(request), context)

    return call


def _wrap_upload(
    inner: Callable[[Any, Context], Awaitable[Any]],
    method: str,
    lifecycle: Lifecycle,
    served: ServedCalls,
) -> Any:
    async def call(requests: Any, context: Context) -> Any:
        async with _border(method, context, served), lifecycle.cancel_on_shutdown():
            try:
                return await inner(_each_decoded(requests), context)
            except RaglanError:
                await _read_out(requests)
                raise

    return call


async def _read_out(requests: AsyncIterator[Any]) -> None:
    """Read out the upload. A client whose write fails loses the status: it sees INTERNAL."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READ_OUT_S):
            async for _ in requests:
                pass


def _wrap_stream(
    inner: Callable[[Any, Context], AsyncGenerator[Any, None]],
    method: str,
    lifecycle: Lifecycle,
    served: ServedCalls,
) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        # gRPC lets go of a stream that its reader left; its servicer is to hear of it.
        async with (
            _border(method, context, served),
            aclosing(inner(_decoded(request), context)) as messages,
        ):
            while True:
                # Not around the yield: gRPC is sending then, and would take the end for a cancel.
                async with lifecycle.cancel_on_shutdown():
                    message = await anext(messages, _END)
                if message is _END:
                    return
                yield message

    return call


_WRAPS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): _wrap_unary,
    (True, False): _wrap_upload,
    (False, True): _wrap_stream,
    (True, True): _wrap_stream,
}


@asynccontextmanager
async def _border(called: str, context: Context, served: ServedCalls) -> AsyncIterator[None]:
    started = time.monotonic()
    status = "OK"
    method = tenant_calls.plain(called)
    served.began(method)
    metadata = context.invocation_metadata() or ()
    carrier = request_context.carrier_of(metadata)
    with request_context.incoming(
        carrier, rpc_tracing.name_of(method), rpc_tracing.server_attributes(method)
    ):
        span = tracing.current()
        try:
            if tenant := tenant_calls.adopt(called, metadata):
                span.set_attribute(semconv.TENANT, tenant)
            limit = Deadline.of(context)
            limit.adopt()
            remaining_ms = round(limit.remaining_s() * 1e3, 1)
            span.set_attribute(semconv.DEADLINE_REMAINING_MS, remaining_ms)
            yield
        except RaglanError as error:
            status = rpc_tracing.status_of(error)
            tracing.fail(span, error)
            await _abort(context, error)
        except (asyncio.CancelledError, GeneratorExit) as left:
            why = rpc_tracing.cancellation_cause(left, deadline.current())
            status = rpc_tracing.status_of(why)
            tracing.fail(span, why)
            raise
        except Exception as error:
            status = rpc_tracing.status_of(error)
            tracing.fail(span, error)
            log.exception("unexpected error", method=method)
            await _abort(context, errors.Internal("The service met an error of its own."))
        finally:
            span.set_attribute(semconv.RPC_STATUS, status)
            elapsed_s = time.monotonic() - started
            served.ended(method, status, elapsed_s)
            log.debug("rpc", method=method, status=status, elapsed_ms=round(elapsed_s * 1e3, 2))


async def _abort(context: Context, error: RaglanError) -> None:
    row = errors.wire(error)
    trailing = [(errors.SAID_METADATA, row.type)]
    if error.retry_after_s is not None:
        trailing.append((errors.RETRY_AFTER_METADATA, str(math.ceil(error.retry_after_s * 1e3))))
    if error.is_final:
        trailing.append((errors.FINAL_METADATA, "1"))
    status = grpc.StatusCode[row.status]
    await context.abort(
        status, tenancy.unqualified(error.message), trailing_metadata=tuple(trailing)
    )
