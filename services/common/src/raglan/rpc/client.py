"""Calling one replica of a service: a channel, a deadline on every call, our errors back."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import grpc

from raglan import errors
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError
from raglan.rpc import credentials, faults, tenant_calls
from raglan.rpc.tracing import Attempt

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # By default the first success after an outage of 30 s comes 12 s late; so, 1 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # It is also how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A stopped peer is noticed after 15 s; keepalive_timeout alone has no effect.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # By default two pings without a call between them are followed by one a minute.
    ("grpc.http2.max_pings_without_data", 0),
    # The mesh's own calls, loopback ones included, would follow http_proxy.
    ("grpc.enable_http_proxy", 0),
    # Else a new channel inherits the failures, and the pause, of an older one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries are the pool's, under one budget.
    ("grpc.enable_retries", 0),
)


_SIZE: Final = re.compile(r"larger than max|metadata size", re.IGNORECASE)
"""In what gRPC itself says of a message or of headers beyond its limits."""

_UNREAD_RETRY_S: Final = 0.1


def connect(
    address: str, *, target: str = "", max_message_bytes: int = 16 * 1024 * 1024
) -> grpc.aio.Channel:
    """A channel to one replica. Close it yourself.

    Args:
        address: "host:port".
        target: the service there, whose name its certificate must hold (`raglan.tls_files`), and
            by which faults are rehearsed (`raglan.rpc.faults`).
        max_message_bytes: limit of a message in either direction.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    )
    return credentials.channel(
        address,
        service=target,
        options=options,
        interceptors=faults.interceptors(target, address),
    )


async def call(
    method: Callable[..., Any],
    request: Any,
    *,
    deadline: Deadline,
    to: str = "the service",
    attempt: Attempt | None = None,
) -> Any:
    """Call a unary-reply `method` of a stub.

    Args:
        method: a method of a stub.
        request: the message, or an async iterator of messages for a streaming request.
        deadline: limit of the call.
        to: names the callee in errors, e.g. "the embedder".
        attempt: the call's span, where the caller knows more of it than is known here.

    Raises:
        RaglanError: what the callee reported, or Unavailable / DeadlineExceeded on the way.
    """
    remaining = deadline.remaining_s()
    if remaining <= 0:
        raise DeadlineExceeded(f"The deadline passed before {to} was called.")
    attempt = attempt or Attempt()
    attempt.begin(method, remaining)
    metadata = tenant_calls.outgoing(attempt.span)
    error: BaseException | None = None
    try:
        return await method(request, timeout=remaining, metadata=metadata)
    except grpc.aio.AioRpcError as failed:
        error = from_rpc_error(failed, to)
        raise error from None
    except BaseException as left:
        error = left
        raise
    finally:
        attempt.answered(error)


async def stream(
    method: Callable[..., Any],
    request: Any,
    *,
    deadline: Deadline,
    to: str = "the service",
    attempt: Attempt | None = None,
) -> AsyncGenerator[Any, None]:
    """Call a streaming-reply `method`; like `call`. Wrap in `contextlib.aclosing`.

    Leaving the iterator early cancels the call: gRPC does not do that by itself.
    """
    remaining = deadline.remaining_s()
    if remaining <= 0:
        raise DeadlineExceeded(f"The deadline passed before {to} was called.")
    attempt = attempt or Attempt()
    attempt.begin(method, remaining)
    attempt.streams()
    replies = method(request, timeout=remaining, metadata=tenant_calls.outgoing(attempt.span))
    error: BaseException | None = None
    begun = False
    try:
        async for reply in replies:
            begun = True
            attempt.replied()
            yield reply
    except grpc.aio.AioRpcError as failed:
        error = from_rpc_error(failed, to, begun=begun)
        raise error from None
    except BaseException as left:
        error = left
        raise
    finally:
        replies.cancel()
        attempt.answered(error)


def from_rpc_error(error: grpc.aio.AioRpcError, to: str, *, begun: bool = False) -> RaglanError:
    """Our error for a failed call; gRPC's own words about transport become a sentence.

    Args:
        error: the failed call.
        to: name of the callee in the message.
        begun: whether a part of the reply had come.
    """
    trailing = dict(error.trailing_metadata() or ())
    told = trailing.get(errors.RETRY_AFTER_METADATA)
    retry_after_s = None if told is None else int(told) / 1e3
    status, message = error.code(), error.details() or ""
    if status is grpc.StatusCode.UNAVAILABLE and errors.SAID_METADATA not in trailing:
        message = f"{_capital(to)} cannot be reached."
    elif status is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"{_capital(to)} did not answer before the deadline."
    elif status is grpc.StatusCode.CANCELLED and begun:
        # Our own leaving shows as asyncio.CancelledError: this was the other side's.
        status, message = grpc.StatusCode.UNAVAILABLE, f"{_capital(to)} ended the call."
    elif status is grpc.StatusCode.CANCELLED:
        # So gRPC refuses what a busy server has not read (`GrpcSettings.max_unread_calls`).
        status, message = grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_capital(to)} reads no more calls."
        retry_after_s = _UNREAD_RETRY_S
    elif status is grpc.StatusCode.UNIMPLEMENTED and errors.SAID_METADATA not in trailing:
        message = f"{_capital(to)} does not know this call; it may be of an earlier version."
    elif status is grpc.StatusCode.UNKNOWN:
        message = f"{_capital(to)} met an error of its own."
    elif status is grpc.StatusCode.RESOURCE_EXHAUSTED and errors.SAID_METADATA not in trailing:
        if _SIZE.search(message):
            # It does not fit the next time either.
            status = grpc.StatusCode[errors.TABLE[errors.PayloadTooLarge].status]
            message = f"A message from or to {to} is too large: {message}."
        else:
            message = f"{_capital(to)} takes no more calls for the moment."
    raised = errors.from_status(
        status.name,
        message,
        said=trailing.get(errors.SAID_METADATA, ""),
        retry_after_s=retry_after_s,
    )
    raised.is_final = errors.FINAL_METADATA in trailing
    return raised


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
