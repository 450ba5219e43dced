"""Traces as JSON: the bodies of `/v1/traces`, spans in the order in which they began."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData
from raglan.telemetry import semconv

from raglan_tracer.spans import each, service_of
from raglan_tracer.store import Summary

_STATUS: Final = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}
_KINDS: Final = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}


def trace_json(summary: Summary, spans: bytes) -> bytes:
    """The body of `GET /v1/traces/{id}`. Takes up to 0.1 s for the longest traces: use a thread.

    Args:
        summary: of the trace.
        spans: a serialized `TracesData`.
    """
    found = [
        _span(service_of(resource), span, summary.trace_id)
        for resource, span in each(TracesData.FromString(spans))
    ]
    found.sort(key=lambda span: (span["start_ns"], -span["end_ns"]))
    document = {
        **summary_of(summary),
        "missing": [address for address in summary.missing.split(",") if address],
        "spans": found,
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False).encode()


def list_json(found: Sequence[tuple[int, Summary]], limit: int, *, in_memory: bool) -> bytes:
    """The body of `GET /v1/traces`.

    Args:
        found: each trace with its place in the order of arrival, newest first.
        limit: how many were asked for; as many as that may have others behind them.
        in_memory: whether the traces end with the process.
    """
    document = {
        "traces": [summary_of(summary) for _, summary in found],
        "next_before": found[-1][0] if found and len(found) == limit else None,
        "in_memory": in_memory,
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False).encode()


def summary_of(summary: Summary) -> dict[str, Any]:
    """A trace in a list of traces."""
    return {
        "trace_id": summary.trace_id.hex(),
        "route": summary.route,
        "name": summary.name,
        "status": summary.status,
        "error": summary.error,
        "degraded": summary.degraded,
        "hedged": summary.hedged,
        "retried": summary.retried,
        "start_ns": summary.start_ns,
        "duration_ms": round(summary.duration_ms, 3),
        "reasons": [reason for reason in summary.reasons.split(",") if reason],
        "span_count": summary.spans,
        "dropped": summary.dropped,
        "complete": summary.complete,
    }


def _span(service: str, span: Span, trace_id: bytes) -> dict[str, Any]:
    shown = {
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "service": service,
        "name": span.name,
        "kind": _KINDS.get(span.kind, "internal"),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": _STATUS.get(span.status.code, "unset"),
        "attributes": _attributes(span.attributes),
        "events": [
            {
                "name": event.name,
                "time_ns": event.time_unix_nano,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": _attributes(link.attributes),
            }
            for link in span.links
        ],
    }
    if span.status.message:
        shown["status_message"] = span.status.message
    if span.trace_id != trace_id:
        shown["trace_id"] = span.trace_id.hex()
    return shown


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for attribute in attributes:
        if attribute.key.endswith(semconv.PACKED):
            shown.update(_unpacked(attribute))
        else:
            shown[attribute.key] = _value(attribute.value)
    return shown


def _unpacked(attribute: KeyValue) -> dict[str, Any]:
    """Expand a packed document list into OpenInference attributes; others are left as they are."""
    try:
        documents = semconv.Documents.unpacked(attribute.value.string_value)
    except ValueError:  # a foreign attribute of the same name
        return {attribute.key: _value(attribute.value)}
    return dict(documents.attributes(attribute.key.removesuffix(semconv.PACKED)))


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    if kind == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)  # JSON has no such number
    return getattr(value, kind) if kind else None
