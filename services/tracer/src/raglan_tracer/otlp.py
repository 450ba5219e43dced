"""Read the body of an OTLP/HTTP request: protobuf or JSON, gzip or plain, within bounds.

The messages are those of opentelemetry-proto; JSON is protobuf's own mapping, but that trace and
span ids are hexadecimal (OTLP specification, "JSON Protobuf Encoding").
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # has no stubs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan.v1.traces_pb2 import ResourceSpansOutline, ScopeSpansOutline, SpanOutline, TracesOutline

from raglan_tracer.spans import MAX_SPAN_BYTES, MAX_SPAN_PARTS, bounded_resource, cost_of

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

MAX_RESOURCES: Final = 1_000
MAX_SCOPES: Final = 1_000
MAX_SPANS: Final = 10_000
MAX_COST: Final = 16 * 1024 * 1024
"""Bytes in memory, of one request."""

MAX_JSON_VALUES: Final = 300_000
"""Objects, lists and names in one request; a span with ten attributes has some 60."""

_GZIP: Final = zlib.MAX_WBITS | 16
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
_SNAKE: Final = {"trace_id": "traceId", "span_id": "spanId", "parent_span_id": "parentSpanId"}


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` as it was before it was packed.

    Raises:
        InvalidInput: an encoding other than gzip, or no gzip.
        PayloadTooLarge: more than `limit` bytes.
    """
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise InvalidInput(f"Content-Encoding is {encoding[:40]!r}; send gzip, or plain bytes.")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"The body is not gzip as Content-Encoding says: {error}.") from None
    if len(plain) > limit:
        raise PayloadTooLarge(f"The body unpacks to more than {limit} bytes; send fewer spans.")
    if not unpacker.eof:
        raise InvalidInput("The body is gzip that ends in the middle.")
    if unpacker.unused_data:
        raise InvalidInput("The body goes on after the end of its gzip.")
    return plain


class SentSpan(NamedTuple):
    """A span as it was sent, with the resource that made it."""

    resource: Resource
    span: Span
    cost: int
    """Bytes that it takes in memory, about."""


def read_spans(body: bytes, kind: str) -> tuple[list[SentSpan], int]:
    """Read the spans in `body`, which is of content type `kind`.

    All is counted before anything is made of it: an empty message of two bytes takes a hundred.

    Returns:
        The spans, and how many were refused because they are too large.

    Raises:
        InvalidInput: it cannot be read as that.
        PayloadTooLarge: it holds too much.
    """
    try:
        outline = _Outline(_protobuf_of_json(body) if kind == JSON else body)
        return list(outline), outline.refused
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"The body is no ExportTraceServiceRequest as {kind}: {_first_line(error)}"
        ) from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply.") from None


class _Outline:
    """The spans of a serialized request, one after the other, within bounds."""

    def __init__(self, body: bytes) -> None:
        self.refused = 0
        self._room = MAX_COST
        resources = TracesOutline.FromString(body).resource_spans
        _bound("resources", len(resources), MAX_RESOURCES)
        self._resources = [ResourceSpansOutline.FromString(each) for each in resources]
        scopes = sum(len(each.scope_spans) for each in self._resources)
        _bound("scopes", scopes, MAX_SCOPES)
        self._spans = [
            [ScopeSpansOutline.FromString(scope).spans for scope in each.scope_spans]
            for each in self._resources
        ]
        count = sum(len(spans) for scopes in self._spans for spans in scopes)
        _bound("spans", count, MAX_SPANS)

    def __iter__(self) -> Iterator[SentSpan]:
        for of_resource, scopes in zip(self._resources, self._spans, strict=True):
            resource = bounded_resource(of_resource.resource)
            self._take(cost_of(resource, deep=True))
            for body in chain.from_iterable(scopes):
                if (sent := self._sent(resource, body)) is None:
                    self.refused += 1
                else:
                    yield sent

    def _sent(self, resource: Resource, body: bytes) -> SentSpan | None:
        outline = SpanOutline.FromString(body)
        parts = len(outline.attributes) + len(outline.events) + len(outline.links)
        if len(body) > MAX_SPAN_BYTES or parts > MAX_SPAN_PARTS:
            return None
        span = Span.FromString(body)
        cost = cost_of(span, deep=True)
        self._take(cost)
        return SentSpan(resource, span, cost) if cost <= MAX_SPAN_BYTES else None

    def _take(self, cost: int) -> None:
        self._room -= cost
        if self._room < 0:
            raise PayloadTooLarge(
                f"The spans take more than {MAX_COST} bytes in memory; send fewer at a time."
            )


def _bound(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise PayloadTooLarge(f"There are {count} {what}; the limit is {limit} a request.")


def _protobuf_of_json(body: bytes) -> bytes:
    values = sum(body.count(each) for each in (b"{", b"[", b":"))
    if values > MAX_JSON_VALUES:
        raise PayloadTooLarge(
            f"The JSON has some {values} objects, lists and names; the limit is {MAX_JSON_VALUES}."
        )
    document = _with_base64_ids(json.loads(body))
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    request = ExportTraceServiceRequest()
    json_format.ParseDict(document, request, ignore_unknown_fields=True)
    return request.SerializeToString()


def encoded(message: Message, kind: str) -> bytes:
    """`message` as the client wants it."""
    if kind == JSON:
        return json_format.MessageToJson(message, indent=None).encode()
    return message.SerializeToString()


def problem(code: int, sentence: str) -> Status:
    """Build OTLP's error body; `code` is a gRPC status code."""
    return Status(code=code, message=sentence)


def _with_base64_ids(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_base64_ids(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _base64(key, value)
        if _SNAKE.get(key, key) in _IDS and isinstance(value, str)
        else _with_base64_ids(value)
        for key, value in node.items()
    }


def _base64(key: str, value: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except ValueError:
        raise ValueError(f"{key} is not hexadecimal") from None


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    return f"{line[:200]}." if line else "it cannot be parsed."
