"""The body of an OTLP/HTTP request, read: protobuf or JSON, gzip or plain, within bounds.

The messages are those of opentelemetry-proto; JSON is protobuf's own mapping, but that trace and
span ids are hexadecimal (OTLP specification, "JSON Protobuf Encoding").
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # has no stubs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from raglan.errors import InvalidInput, PayloadTooLarge

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

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


def parsed(body: bytes, kind: str) -> ExportTraceServiceRequest:
    """The spans in `body`, which is of content type `kind`.

    Raises:
        InvalidInput: it cannot be read as that.
    """
    try:
        if kind == PROTOBUF:
            return ExportTraceServiceRequest.FromString(body)
        document = _with_base64_ids(json.loads(body))
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        request = ExportTraceServiceRequest()
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
        return request
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"The body is no ExportTraceServiceRequest as {kind}: {_first_line(error)}"
        ) from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply.") from None


def encoded(message: Message, kind: str) -> bytes:
    """`message` as the client wants it."""
    if kind == JSON:
        return json_format.MessageToJson(message, indent=None).encode()
    return message.SerializeToString()


def problem(code: int, sentence: str) -> Status:
    """What OTLP answers with an error status; `code` is one of gRPC's."""
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
