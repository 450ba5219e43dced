"""What the environment says about tracing, under one name for every service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

CONTENT: Final = "RAGLAN_TRACE_CONTENT"
"""Whether spans carry queries, passages and answers: "1" or "true". Off by default."""

SPANS: Final = "RAGLAN_TRACE_SPANS"
"""How many of its newest spans a process remembers, each about a kilobyte."""

OWN: Final = (CONTENT, SPANS)
"""Those that are not OpenTelemetry's."""

MAX_SPANS: Final = 20_000
"""By default: about 10 s of a gateway under 250 requests/s."""

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where every process sends all its spans besides: OpenTelemetry's own variables."""

PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DISABLED: Final = "OTEL_SDK_DISABLED"
""" "true" switches spans off."""

_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("", "0", "false", "no", "off")
_SPOKEN: Final = "http/protobuf"


def content(environ: Mapping[str, str]) -> bool:
    """Whether spans carry content."""
    return environ.get(CONTENT, "").strip().lower() in _YES


def max_spans(environ: Mapping[str, str]) -> int:
    """How many spans a process remembers."""
    return int(environ.get(SPANS) or MAX_SPANS)


def exported(environ: Mapping[str, str]) -> bool:
    """Whether spans go to a collector besides."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    return exporter != "none" and any(environ.get(name) for name in ENDPOINTS)


def disabled(environ: Mapping[str, str]) -> bool:
    """Whether no spans are made at all."""
    return environ.get(DISABLED, "").strip().lower() == "true"


def problem(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the variables, as a sentence; None when nothing is."""
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
