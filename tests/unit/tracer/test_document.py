"""A trace as its readers get it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from raglan.telemetry import otlp, semconv
from raglan.telemetry.recording import RecordedSpan, Tracer
from raglan_tracer.document import trace_json
from raglan_tracer.store import Summary
from tracer_bench import resource

TRACER = Tracer(Resource({"service.name": "gateway"}), SpanProcessor(), "test")
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def ended(attributes: dict[str, Any]) -> RecordedSpan:
    span = TRACER.begin("retrieve", None, attributes)
    span.end()
    return span


def shown(spans: bytes) -> dict[str, Any]:
    """The attributes of the only span, as readers get them."""
    summary = Summary(
        *(b"1" * 16, "/v1/search", "POST /v1/search", 200, False, False, False, False, 0, 1.0),
        *("sampled", 1, 0, True, ""),
    )
    (span,) = json.loads(trace_json(summary, spans))["spans"]
    attributes: dict[str, Any] = span["attributes"]
    return attributes


@given(
    st.lists(st.text(max_size=50), max_size=5),
    st.lists(SCORES, max_size=5),
    st.lists(st.text(max_size=200), max_size=5),
)
def test_a_ranked_list_reads_the_same_whether_it_came_as_one_or_not(
    ids: list[str], scores: list[float | None], contents: list[str]
) -> None:
    documents = semconv.Documents(ids, scores, contents)
    span = ended({semconv.RETRIEVED: documents, "other": [1, 2]})
    assert shown(otlp.encode([span], packed=True)) == shown(otlp.encode([span]))


def test_a_ranked_list_is_cut_and_holds_no_secret_on_its_way() -> None:
    ids = ["https://user:hunter2@host/a"] + [str(number) for number in range(500)]
    sent = otlp.encode(
        [ended({semconv.RETRIEVED: semconv.Documents(ids, (), ["x" * 9_999])})], packed=True
    )
    assert b"hunter2" not in sent
    assert len(sent) < 6_000
    assert len([name for name in shown(sent) if name.endswith(".id")]) == 100


@pytest.mark.parametrize(
    "value",
    [
        *("", "[", "{}", "null", "[1,2,3]", "[[],[],[],[]]", '[[{"a":1}],[],[]]', "[[],[],[1]]"),
        *('[["a"],["b"],[]]', '[["a"],[Infinity],[]]', '[["a"],[1e999],[]]', '[["a"],[true],[]]'),
        f'[["a"],[1{"0" * 400}],[]]',
    ],
)
def test_what_another_calls_the_same_is_shown_as_it_is(value: str) -> None:
    name = "theirs" + semconv.PACKED
    span = Span(attributes=[KeyValue(key=name, value=AnyValue(string_value=value))])
    data = TracesData(
        resource_spans=[
            ResourceSpans(resource=resource("x"), scope_spans=[ScopeSpans(spans=[span])])
        ]
    )
    assert shown(data.SerializeToString()) == {name: value}
