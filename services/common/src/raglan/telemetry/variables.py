"""Environment variables of tracing, with one name for every service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

CONTENT: Final = "RAGLAN_TRACE_CONTENT"
"""Record queries, passages and answers in spans: "1" or "true". Off by default."""

SPANS: Final = "RAGLAN_TRACE_SPANS"
"""Number of the newest spans that a process keeps, about a kilobyte each."""

OWN: Final = (CONTENT, SPANS)
"""Variables of ours, not OpenTelemetry's."""

MAX_SPANS: Final = 20_000
"""By default: about 10 s of a gateway under 250 requests/s."""

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables for a collector that receives all spans."""

PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DISABLED: Final = "OTEL_SDK_DISABLED"
""" "true" switches spans off."""

_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("", "0", "false", "no", "off")
_SPOKEN: Final = "http/protobuf"


def content(environ: Mapping[str, str]) -> bool:
    """Return whether spans carry content."""
    return environ.get(CONTENT, "").strip().lower() in _YES


def max_spans(environ: Mapping[str, str]) -> int:
    """Return the number of spans that a process keeps."""
    return int(environ.get(SPANS) or MAX_SPANS)


def exported(environ: Mapping[str, str]) -> bool:
    """Return whether spans are also sent to a collector."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    return exporter != "none" and any(environ.get(name) for name in ENDPOINTS)


def disabled(environ: Mapping[str, str]) -> bool:
    """Return whether tracing is disabled."""
    return environ.get(DISABLED, "").strip().lower() == "true"


def problem(environ: Mapping[str, str]) -> str | None:
    """Describe the error in the variables in one sentence, or return None."""
    given = environ.get(CONTENT, "")
    if given.strip().lower() not in (*_YES, *_NO):
        return f"{CONTENT} is {given!r}; give 1 to let spans carry queries and answers, or 0."
    spans = environ.get(SPANS, "")
    if spans and (not spans.isdecimal() or int(spans) < 1):
        return f"{SPANS} is {spans!r}; give a number of spans, 1 or more."
    if not exported(environ):
        return None
    for name in ENDPOINTS:
        if (endpoint := environ.get(name)) and not _is_url(endpoint):
            shown = endpoint.rpartition("@")[2]  # what is before it may be a password
            return f"{name} is {shown!r}; give a URL such as http://collector:4318."
    for name in PROTOCOLS:
        if (protocol := environ.get(name, _SPOKEN)) != _SPOKEN:
            return (
                f"{name} is {protocol!r}; spans are sent as {_SPOKEN}, "
                "which collectors take on port 4318."
            )
    return None


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        # Read, because a port that is no number shows only then.
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
