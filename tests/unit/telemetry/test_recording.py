"""Spans as they are recorded and as they are read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from raglan import errors
from raglan.telemetry import context as request_context
from raglan.telemetry import recording, semconv, tracing, variables
from raglan.telemetry.recording import RecordedSpan


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


def begun(attributes: dict[str, Any] | None = None) -> RecordedSpan:
    span = tracing.begin("step", attributes, parent=None)
    assert isinstance(span, RecordedSpan)
    return span


def only(traces: tracing.Tracing, trace_id: int) -> ReadableSpan:
    (span,), _ = traces.recent.of(trace_id)
    return span


def test_a_span_is_read_as_one_of_the_sdks(traces: tracing.Tracing) -> None:
    parent = begun().get_span_context()
    span = tracing.begin("step", {"a": 1, "b": ["x", "y"]}, parent=parent, kind=SpanKind.CLIENT)
    span.add_event("happened", {"c": 2.5})
    span.add_link(parent)
    tracing.end(span)
    (resource,) = encode_spans(traces.recent.of(parent.trace_id)[0]).resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names[semconv.SERVICE_NAME] == "test"
    (encoded,) = resource.scope_spans[0].spans
    assert encoded.trace_id == parent.trace_id.to_bytes(16, "big")
    assert encoded.parent_span_id == parent.span_id.to_bytes(8, "big")
    assert encoded.name == "step"
    assert [event.name for event in encoded.events] == ["happened"]
    assert encoded.links[0].span_id == encoded.parent_span_id
    assert encoded.status.code == StatusCode.OK.value
    assert 0 < encoded.start_time_unix_nano <= encoded.end_time_unix_nano


def test_a_ranked_list_becomes_the_attributes_that_openinference_has(
    traces: tracing.Tracing,
) -> None:
    span = begun({semconv.RETRIEVED: semconv.Documents(["a", "b"], [0.5, None], ["text"])})
    span.end()
    assert dict(span.attributes or {}) == {
        "retrieval.documents.0.document.id": "a",
        "retrieval.documents.0.document.score": 0.5,
        "retrieval.documents.0.document.content": "text",
        "retrieval.documents.1.document.id": "b",
    }


def test_what_is_too_long_or_too_much_is_cut_when_it_is_read(traces: tracing.Tracing) -> None:
    many = semconv.Documents([str(n) for n in range(1_000)])
    span = begun({"text": "x" * 100_000, "list": ["y" * 9_999] * 999, "none": None, "ids": many})
    for number in range(1_000):
        span.set_attribute(f"n{number}", number)
        span.add_event("e")
        span.add_link(span.get_span_context())
    span.end()
    read = span.attributes or {}
    assert len(str(read["text"])) == recording.MAX_VALUE_CHARS
    assert "none" not in read
    assert len([name for name in read if name.startswith("ids.")]) == 100
    assert len([name for name in read if name.startswith("n")]) == recording.MAX_ATTRIBUTES - 4
    assert (len(span.events), len(span.links)) == (recording.MAX_EVENTS, recording.MAX_LINKS)
    assert span.dropped_events == 1_000 - recording.MAX_EVENTS
    assert len(span.to_json()) < 500_000


def test_an_ended_span_does_not_change(traces: tracing.Tracing) -> None:
    span = begun({"a": 1})
    now = time.time_ns()
    span.end(now)
    span.end(now + 1)
    span.set_attribute("b", 2)
    span.set_attributes({"c": 3})
    span.set_status(Status(StatusCode.ERROR))
    span.add_event("late")
    assert dict(span.attributes or {}) == {"a": 1}
    assert (span.end_time, span.status.status_code, span.events) == (now, StatusCode.UNSET, ())
    assert only(traces, span.get_span_context().trace_id).to_json() == span.to_json()


def test_the_first_word_on_how_a_step_ended_counts(traces: tracing.Tracing) -> None:
    span = begun()
    tracing.fail(span, errors.Overloaded("full"))
    tracing.end(span, ValueError("while it was told"))
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "full")
    assert (span.attributes or {})[semconv.ERROR_TYPE] == "overloaded"


@pytest.mark.parametrize(
    ("error", "type_", "description"),
    [
        (errors.Unavailable("The engine is gone."), "unavailable", "The engine is gone."),
        (errors.InvalidInput("got 'Mrs Miller'"), "invalid_input", ""),
        (asyncio.CancelledError(), "cancelled", "The caller left."),
        (TimeoutError(), "deadline_exceeded", "The time ran out."),
        (KeyError("Mrs Miller"), "KeyError", "An error of its own."),
    ],
)
def test_a_block_that_raises_is_an_error_that_quotes_nobody(
    error: BaseException, type_: str, description: str, traces: tracing.Tracing
) -> None:
    with request_context.incoming({}), pytest.raises(type(error)), tracing.span("step") as span:
        raise error
    read = only(traces, span.get_span_context().trace_id)
    assert read.status.status_code is StatusCode.ERROR
    assert (read.attributes or {})[semconv.ERROR_TYPE] == type_
    assert read.status.description == description


def test_a_secret_is_in_no_span_wherever_it_was_written(traces: tracing.Tracing) -> None:
    key = "sk-proj-0123456789abcdef"
    span = begun({"url": f"http://user:{key}@host/", "list": [f"Bearer {key}"]})
    span.add_event("failed", {"why": f"api_key={key}"})
    tracing.fail(span, errors.Unavailable(f"The server refused the key {key}."))
    span.end()
    assert key not in span.to_json()


def test_a_step_outside_of_a_trace_makes_no_span(traces: tracing.Tracing) -> None:
    with tracing.span("step") as span:
        span.set_attribute("a", 1)
    assert len(traces.recent) == 0


def test_steps_are_nested_as_their_blocks_are(traces: tracing.Tracing) -> None:
    with (
        request_context.incoming({}, "root"),
        tracing.span("outer") as outer,
        tracing.span("inner"),
    ):
        trace_id = outer.get_span_context().trace_id
    inner, middle, root = traces.recent.of(trace_id)[0]
    assert inner.parent == middle.context
    assert middle.parent == root.context
    assert root.parent is None


async def test_a_stream_closed_by_another_task_restores_nothing(
    traces: tracing.Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that another task closes restores nothing and says nothing."""

    async def steps() -> Any:
        with request_context.incoming({}, "stream"):
            yield 1
            yield 2

    stream = steps()
    await asyncio.create_task(stream.__anext__())
    await asyncio.create_task(stream.aclose())
    assert caplog.records == []
    assert len(traces.recent) == 1


def test_a_span_of_the_past_has_its_interval_and_as_many_links_as_it_may(
    traces: tracing.Tracing,
) -> None:
    parent, now = begun().get_span_context(), time.time_ns()
    tracing.record(
        "batch",
        {},
        parent=parent,
        interval_ns=(now - 5, now),
        links=[parent] * 1_000,
        error=errors.Internal("The model failed."),
    )
    span = only(traces, parent.trace_id)
    assert (span.start_time, span.end_time) == (now - 5, now)
    assert len(span.links) == recording.MAX_LINKS
    assert span.status.status_code is StatusCode.ERROR


def test_switched_off_no_span_is_made_and_the_context_travels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variables.DISABLED, "true")
    traces = tracing.install("test")
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with request_context.incoming(carrier, "root"), tracing.span("step"):
        headers = request_context.headers()
    traces.close()
    assert headers["traceparent"] == carrier["traceparent"]
    assert len(traces.recent) == 0


def test_content_leaves_only_when_it_is_let(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, shown in (("", None), ("0", None), ("1", "text"), ("true", "text")):
        monkeypatch.setenv(variables.CONTENT, value)
        traces = tracing.install("test")
        assert tracing.content("text") == shown
        traces.close()
    assert tracing.content("text") is None
