"""Spans as bytes: what the sdk's encoder would have written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from opentelemetry.trace import SpanKind, Status, StatusCode
from raglan.errors import Overloaded
from raglan.telemetry import context as request_context
from raglan.telemetry import otlp, semconv, tracing
from raglan.telemetry.recording import RecordedSpan

CALLED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1,other=2",
}


@pytest.fixture(autouse=True)
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


def begun(attributes: dict[str, Any] | None = None, **options: Any) -> RecordedSpan:
    span = tracing.begin("step", attributes, **({"parent": None} | options))
    assert isinstance(span, RecordedSpan)
    return span


def theirs(spans: list[RecordedSpan]) -> TracesData:
    data = TracesData.FromString(encode_spans(spans).SerializeToString())
    for span in _spans(data):
        span.flags = 0  # says whether the parent was remote, which the parent's span says better
        for link in span.links:
            link.flags = 0
    return data


def ours(spans: list[RecordedSpan]) -> TracesData:
    return TracesData.FromString(otlp.encode(spans))


def _spans(data: TracesData) -> list[Span]:
    return [s for r in data.resource_spans for scope in r.scope_spans for s in scope.spans]


def test_a_span_with_everything_is_what_the_sdk_writes() -> None:
    parent = request_context.caller(CALLED)
    assert parent is not None
    documents = semconv.Documents(["a", "b"], [0.5, -1e300], ["text"])
    span = begun({semconv.RETRIEVED: documents}, parent=parent, kind=SpanKind.CONSUMER)
    span.add_event("happened", {"why": "so", "how often": 3})
    span.add_link(parent, {"x": 1.5})
    tracing.fail(span, Overloaded("full"))
    span.end()
    assert ours([span]) == theirs([span])


@pytest.mark.parametrize("kind", SpanKind)
@pytest.mark.parametrize("status", StatusCode)
def test_every_kind_and_status_is_what_the_sdk_writes(kind: SpanKind, status: StatusCode) -> None:
    span = begun(kind=kind)
    span.set_status(Status(status))
    span.end()
    assert ours([span]) == theirs([span])


VALUES = st.one_of(
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=20), max_size=5),
    st.lists(st.integers(-5, 5), max_size=5),
)


@given(st.lists(st.dictionaries(st.text(max_size=200), VALUES, max_size=20), max_size=4))
def test_whatever_the_attributes_are_they_are_what_the_sdk_writes(
    many: list[dict[str, Any]],
) -> None:
    spans = [begun(attributes) for attributes in many]
    for span in spans:
        span.end()
    assert ours(spans) == theirs(spans)


@given(st.lists(st.dictionaries(st.text(max_size=200), VALUES, max_size=20), max_size=4))
def test_what_was_kept_is_what_was_made(many: list[dict[str, Any]]) -> None:
    parent = request_context.caller(CALLED)
    documents = semconv.Documents(["a", "b"], [0.5, None])
    for attributes in many:
        span = begun({**attributes, semconv.RETRIEVED: documents}, parent=parent)
        span.add_event("happened", {"why": "so"})
        span.add_link(span.get_span_context())
        tracing.fail(span, Overloaded("full"))
        span.end()
        again = RecordedSpan.unpacked(span.tracer, span.get_span_context().trace_id, span.packed())
        assert ours([again]) == ours([span])


def test_true_and_one_are_not_the_same() -> None:
    spans = [begun({"x": value}) for value in (1, True, 1.0, "1", 0, False)]
    for span in spans:
        span.end()
    assert ours(spans) == theirs(spans)


def test_what_otlp_has_no_type_for_is_text() -> None:
    span = begun({"huge": 2**70, "error": KeyError("x")})
    span.end()
    (read,) = _spans(ours([span]))
    assert {a.key: a.value.string_value for a in read.attributes} == {
        "huge": str(2**70),
        "error": "KeyError",
    }


def test_spans_of_two_services_stay_apart() -> None:
    first = begun()
    first.end()
    other = tracing.install("other")
    second = begun()
    second.end()
    other.close()
    data = ours([first, second])
    names = [
        {a.key: a.value.string_value for a in r.resource.attributes}[semconv.SERVICE_NAME]
        for r in data.resource_spans
    ]
    assert names == ["test", "other"]
