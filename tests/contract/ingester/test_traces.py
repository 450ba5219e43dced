"""A job in the trace of its upload: the run, its stages, the calls it makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from raglan.errors import InvalidInput, Unavailable
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "0af7651916cd43dd8448eb211c80319c"
UPLOAD = "raglan.v1.IngesterService/Submit"
EMBED_CALL = "raglan.v1.EmbedderService/Embed"


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("ingester")
    yield installed
    installed.close()


async def ingested(ingester: Any, documents: dict[str, str]) -> None:
    with request_context.incoming({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        job = await ingester.submit(documents)
    await ingester.ended(job)


async def spans_of(traces: tracing.Tracing, until: Any) -> list[ReadableSpan]:
    """All spans of the trace, once the job's own, which ends last, is among them."""

    def found() -> tuple[ReadableSpan, ...]:
        return traces.recent.of(int(TRACE, 16))[0]

    await until(lambda: any(span.name == semconv.INGEST_JOB for span in found()))
    return list(found())


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def parent_of(span: ReadableSpan, spans: list[ReadableSpan]) -> str:
    assert span.parent is not None
    parents = [s.name for s in spans if s.context.span_id == span.parent.span_id]
    return parents[0] if parents else ""


async def test_a_job_goes_on_in_the_trace_of_its_upload(
    ingester: Any, traces: tracing.Tracing, until: Any
) -> None:
    await ingested(ingester, {"a": "Some text. " * 20, "b": "Other text. " * 20})
    spans = await spans_of(traces, until)
    (job,) = named(spans, semconv.INGEST_JOB)
    assert parent_of(job, spans) == UPLOAD
    assert job.attributes[semconv.JOB_STATUS] == "succeeded"
    assert job.status.status_code is StatusCode.OK
    assert not job.links
    assert len(named(spans, semconv.PARSE)) == 2
    for stage in (semconv.PARSE, semconv.EMBED, semconv.INDEX):
        assert {parent_of(span, spans) for span in named(spans, stage)} == {semconv.INGEST_JOB}
    calls = {span.kind.name: parent_of(span, spans) for span in named(spans, EMBED_CALL)}
    assert calls == {"CLIENT": semconv.EMBED, "SERVER": EMBED_CALL}


async def test_a_call_that_is_tried_again_is_noted_on_its_stage(
    ingester: Any, embedder: Any, traces: tracing.Tracing, until: Any
) -> None:
    failures = [Unavailable("gone")] * 4
    embedder.error = lambda texts: failures.pop() if failures else None
    await ingested(ingester, {"a": "Some text. " * 20})
    spans = await spans_of(traces, until)
    (stage,) = named(spans, semconv.EMBED)
    assert {event.name for event in stage.events} == {semconv.RETRY}
    assert stage.events[0].attributes == {semconv.ERROR_TYPE: "unavailable"}
    calls = [span for span in named(spans, EMBED_CALL) if span.kind.name == "CLIENT"]
    assert {span.status.status_code for span in calls} == {StatusCode.OK, StatusCode.ERROR}


async def test_a_job_of_which_nothing_can_be_ingested_is_an_error(
    ingester: Any, embedder: Any, traces: tracing.Tracing, until: Any
) -> None:
    embedder.error = lambda texts: InvalidInput("no")
    await ingested(ingester, {"a": "Some secret text. " * 20})
    spans = await spans_of(traces, until)
    (job,) = named(spans, semconv.INGEST_JOB)
    assert job.attributes[semconv.JOB_STATUS] == "failed"
    assert job.status.status_code is StatusCode.ERROR
    assert "secret text" not in "".join(span.to_json() for span in spans)
