"""The span of a request to a model server, and the headers that carry the trace there."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing

_CARRIED: Final = ("traceparent", "tracestate")


def http_span(method: str, url: str) -> tracing.span:
    """The span of one request; current inside, so that `trace_headers` name it."""
    parts = urlsplit(url)
    return tracing.span(
        f"{method} {parts.path}",
        {
            semconv.HTTP_METHOD: method,
            semconv.URL_PATH: parts.path,
            # Without user and password.
            semconv.PEER: parts.netloc.rpartition("@")[2],
        },
        kind=SpanKind.CLIENT,
    )


def trace_headers() -> dict[str, str]:
    """W3C trace context for the other side. The request id is ours and stays here."""
    carried = request_context.headers()
    return {name: carried[name] for name in _CARRIED if name in carried}
