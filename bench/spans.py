"""The span class and OTLP encoder of `raglan.telemetry` beside the SDK's: `make bench-spans`.

Each stays only while it saves 3 % of a query's processor time or more. The spans are those of a
real search through a mesh of null engines, made and encoded again here by either library; the
processor time is that of all services of that mesh.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import null_mesh
from mesh_process import until
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from raglan.telemetry import otlp
from raglan.telemetry.recent_spans import RecentSpans
from raglan.telemetry.recording import RecordedSpan, Tracer
from raglan.telemetry.semconv import Documents
from report import Row, publish

SEARCHES: Final = 600
WARM: Final = 200
ROUNDS: Final = 9
REPEATS: Final = 150
STORED: Final = 0.05
"""Of the traces of requests that went well, how many are kept by default."""
WORTH: Final = ">= 0.03"

_RESOURCE: Final = Resource.create({"service.name": "bench"})
_DOCUMENT: Final = re.compile(r"(.+)\.(\d+)\.document\.(id|score)")
Made = Mapping[str, Any]


def spans() -> list[Row]:
    """Measure each library's time for a query's spans, and its share of the query."""
    query_us, made = _query()
    packed = [_packed(span["attributes"]) for span in made]
    flat = [span["attributes"] for span in made]
    ours, recorded = _ours(made, packed), _Recorded()
    theirs = _theirs(made, flat, recorded)
    record = (_micros(ours), _micros(theirs))
    recent = RecentSpans()
    _ours(made, packed, recent)()
    (trace_id,) = recent._traces
    own_spans, sdk_spans = recent.of(trace_id)[0], list(recorded.spans)[-len(made) :]
    export = (
        _micros(lambda: otlp.encode(own_spans)),
        _micros(lambda: encode_spans(sdk_spans).SerializeToString()),
    )
    stored = (_micros(lambda: otlp.encode(own_spans, packed=True)) * STORED, export[1] * STORED)
    note = f"{len(made)} spans, a query takes {query_us / 1e3:.1f} ms of processor time"
    return [
        *_rows("making and remembering the spans of a query", record, query_us, note, WORTH),
        *_rows("encoding them all for a collector", export, query_us, note, WORTH),
        *_rows(f"encoding {STORED:.0%} of them for the tracer", stored, query_us, note, None),
    ]


def _rows(
    what: str, took: tuple[float, float], query_us: float, note: str, target: str | None
) -> list[Row]:
    ours, theirs = took
    return [
        Row(what, "us", ours, peer=theirs, peer_name="opentelemetry-sdk", note=note),
        Row(f"{what}: saved, of a query", "share", (theirs - ours) / query_us, target),
    ]


def _query() -> tuple[float, Sequence[Made]]:
    """Microseconds of processor time of a search, and its spans."""
    with null_mesh.running() as mesh, mesh.client() as client:

        def search(number: int) -> str:
            reply = client.post("/v1/search", json={"query": f"What does part {number} cost?"})
            found: str = reply.raise_for_status().json()["trace_id"]
            return found

        for number in range(WARM):
            search(number)
        before = sum(null_mesh.cpu_seconds(mesh).values())
        for number in range(WARM, WARM + SEARCHES):
            trace_id = search(number)
        took_us = (sum(null_mesh.cpu_seconds(mesh).values()) - before) * 1e6 / SEARCHES

        def whole() -> Sequence[Made] | None:
            found = client.get(f"/v1/traces/{trace_id}").json()
            return found["spans"] if found.get("complete") else None

        return took_us, until(whole, within_s=15, what="the trace is complete")


def _packed(attributes: Made) -> Made:
    """Attributes as a service sets them: a ranked list is one."""
    found: dict[str, Any] = {}
    lists: dict[str, tuple[list[str], list[float]]] = {}
    for name, value in attributes.items():
        if match := _DOCUMENT.fullmatch(name):
            lists.setdefault(match[1], ([], []))[match[3] == "score"].append(value)
        else:
            found[name] = value
    return found | {name: Documents(ids, scores) for name, (ids, scores) in lists.items()}


def _ours(
    made: Sequence[Made], attributes: Sequence[Made], recent: RecentSpans | None = None
) -> Callable[[], None]:
    tracer = Tracer(_RESOURCE, RecentSpans() if recent is None else recent, "raglan")

    def run() -> None:
        parent = None
        for span, each in zip(made, attributes, strict=True):
            one: RecordedSpan = tracer.begin(span["name"], parent, None, SpanKind.INTERNAL)
            one.set_attributes(each)
            one.set_status(StatusCode.OK)
            one.end()
            parent = parent or one.get_span_context()

    return run


class _Recorded(SpanProcessor):
    """Remembers as many ended spans as `RecentSpans` does."""

    def __init__(self) -> None:
        self.spans: deque[ReadableSpan] = deque(maxlen=20_000)

    def on_end(self, span: ReadableSpan) -> None:
        """Remember `span`."""
        self.spans.append(span)


def _theirs(
    made: Sequence[Made], attributes: Sequence[Made], recorded: _Recorded
) -> Callable[[], None]:
    provider = TracerProvider(resource=_RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(recorded)
    tracer = provider.get_tracer("raglan")

    def run() -> None:
        context = None
        for span, each in zip(made, attributes, strict=True):
            one = tracer.start_span(span["name"], context, SpanKind.INTERNAL)
            one.set_attributes(each)
            one.set_status(StatusCode.OK)
            one.end()
            context = context or trace.set_span_in_context(one)

    return run


def _micros(work: Callable[[], Any]) -> float:
    """Microseconds of processor time that `work` takes."""
    took = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(REPEATS):
            work()
        took.append((time.process_time() - begun) * 1e6 / REPEATS)
    return statistics.median(took)


if __name__ == "__main__":
    publish("spans", spans())
