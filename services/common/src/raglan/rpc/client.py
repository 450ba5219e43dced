"""Calling another service: a channel an address list, a deadline on every call, our errors back."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import grpc

from raglan import errors
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError
from raglan.telemetry import context as request_context

Reply = TypeVar("Reply")

_SERVICE_CONFIG: Final = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    # By default the first success after an outage of 30 s comes 12 s late; so, 1 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A stopped peer is noticed after 15 s; keepalive_timeout alone has no effect.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # The mesh's own calls, loopback ones included, would follow http_proxy.
    ("grpc.enable_http_proxy", 0),
)


def connect(addresses: str, *, max_message_bytes: int = 16 * 1024 * 1024) -> grpc.aio.Channel:
    """A channel over `addresses`, round robin over those that report SERVING. Close it yourself.

    Args:
        addresses: "host:port", or several IP addresses "10.0.0.1:7101,10.0.0.2:7101".

    Raises:
        ValueError: several addresses of which one is a name; give one name that resolves to all.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    )
    return grpc.aio.insecure_channel(target(addresses), options=options)


def target(addresses: str) -> str:
    """The gRPC target of an address list."""
    parts = [part.strip() for part in addresses.split(",") if part.strip()]
    if not parts:
        raise ValueError("no address given")
    versions = {_ip_version(part) for part in parts}
    if versions == {4}:
        return "ipv4:" + ",".join(parts)
    if versions == {6}:
        return "ipv6:" + ",".join(parts)
    if len(parts) == 1:
        return f"dns:///{parts[0]}"
    raise ValueError(
        f"{addresses!r}: several addresses must all be IPv4 or all be IPv6; "
        "or give one DNS name that resolves to all of them"
    )


async def call(
    method: Callable[..., Any], request: Any, *, deadline: Deadline, to: str = "the service"
) -> Any:
    """Call a unary-reply `method` of a stub.

    Args:
        request: the message, or an async iterator of messages for a streaming request.
        to: names the callee in errors, e.g. "the embedder".

    Raises:
        RaglanError: what the callee reported, or Unavailable / DeadlineExceeded on the way.
    """
    remaining = deadline.remaining_s()
    if remaining <= 0:
        raise DeadlineExceeded(f"The deadline passed before {to} was called.")
    try:
        return await method(request, timeout=remaining, metadata=request_context.outgoing())
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, to) from None


async def stream(
    method: Callable[..., Any], request: Any, *, deadline: Deadline, to: str = "the service"
) -> AsyncGenerator[Any, None]:
    """Call a streaming-reply `method`; like `call`. Wrap in `contextlib.aclosing`.

    Leaving the iterator early cancels the call: gRPC does not do that by itself.
    """
    remaining = deadline.remaining_s()
    if remaining <= 0:
        raise DeadlineExceeded(f"The deadline passed before {to} was called.")
    replies = method(request, timeout=remaining, metadata=request_context.outgoing())
    try:
        async for reply in replies:
            yield reply
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, to) from None
    finally:
        replies.cancel()


def from_rpc_error(error: grpc.aio.AioRpcError, to: str) -> RaglanError:
    """Our error for a failed call; gRPC's own words about transport become a sentence."""
    retry_after_s: float | None = None
    for key, value in error.trailing_metadata() or ():
        if key == errors.RETRY_AFTER_METADATA:
            retry_after_s = int(value) / 1e3
    status, message = error.code(), error.details() or ""
    if status is grpc.StatusCode.UNAVAILABLE and (
        not message or "connect" in message.lower() or ":" in message
    ):
        message = f"{_capital(to)} cannot be reached."
    elif status is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"{_capital(to)} did not answer before the deadline."
    elif status is grpc.StatusCode.UNKNOWN or status is grpc.StatusCode.UNIMPLEMENTED:
        message = f"{_capital(to)} met an error of its own."
    return errors.from_status(status.name, message, retry_after_s=retry_after_s)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ip_version(address: str) -> int | None:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None
