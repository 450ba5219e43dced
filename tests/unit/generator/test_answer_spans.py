"""The span of an answer, and what of it content decides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.health import Health
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing, variables
from raglan_generator.generation import (
    Delta,
    EngineInfo,
    Event,
    Finished,
    FinishReason,
    Load,
    Passage,
    Request,
    Sampling,
    Support,
    Usage,
)
from raglan_generator.tracing import traced

QUESTION, ANSWER = "Who is Mrs Miller?", ["She is ", "the mayor."]
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Engine:
    """Says two words; fails after the first when told to."""

    info = EngineInfo(engine="fake", model="tiny")

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[Request] = []

    def load(self) -> Load:
        return Load()

    def health(self) -> Health:
        return Health.SERVING

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        self.asked.append(request)
        for text in ANSWER:
            yield Delta(text)
            if self.fails:
                raise Unavailable("The model server is gone.")
        yield Finished(
            FinishReason.LENGTH, Usage(11, 7, 3), Support(1, 1), "tiny-1", (), 5_000_000, 9_000_000
        )


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("generator")
    yield installed
    installed.close()


async def answered(engine: Engine, *, leave_after: int = 99) -> None:
    request = Request(
        QUESTION,
        (Passage("Mrs Miller is the mayor."),),
        max_tokens=64,
        sampling=Sampling(temperature=0.5),
    )
    with request_context.incoming({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        async with aclosing(traced(engine, request, Deadline.after(5))) as events:
            seen = 0
            async for _ in events:
                seen += 1
                if seen == leave_after:
                    break


def only(traces: tracing.Tracing) -> ReadableSpan:
    (span,), _ = traces.recent.of(int(TRACE, 16))
    return span


async def test_an_answer_has_the_attributes_of_the_genai_conventions(
    traces: tracing.Tracing,
) -> None:
    await answered(Engine())
    span = only(traces)
    assert span.name == "chat tiny"
    attributes = dict(span.attributes or {})
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 1
    assert attributes == {
        "openinference.span.kind": "LLM",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "tiny-1",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "llm.model_name": "tiny",
        "llm.token_count.prompt": 11,
        "llm.token_count.completion": 7,
        "raglan.passages": 1,
        "raglan.queue_ms": 5.0,
        "raglan.compute_ms": 9.0,
    }
    assert span.status.status_code is StatusCode.OK


async def test_the_engine_is_told_the_trace_and_that_it_is_a_child_of_the_answer(
    traces: tracing.Tracing,
) -> None:
    engine = Engine()
    await answered(engine)
    (asked,) = engine.asked
    assert dict(asked.trace_headers) == {
        "traceparent": f"00-{TRACE}-{only(traces).context.span_id:016x}-01"
    }


async def test_an_answer_that_breaks_off_is_an_error(traces: tracing.Tracing) -> None:
    with pytest.raises(Unavailable):
        await answered(Engine(fails=True))
    span = only(traces)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "The model server is gone."


async def test_an_answer_whose_reader_leaves_is_cancelled(traces: tracing.Tracing) -> None:
    await answered(Engine(), leave_after=1)
    assert (only(traces).attributes or {})[semconv.ERROR_TYPE] == "cancelled"


async def test_question_and_answer_are_there_only_where_content_is_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value, shown in (("", False), ("1", True)):
        monkeypatch.setenv(variables.CONTENT, value)
        traces = tracing.install("generator")
        await answered(Engine())
        attributes = only(traces).attributes or {}
        assert (attributes.get(semconv.INPUT) == QUESTION) is shown
        assert (attributes.get(semconv.OUTPUT) == "".join(ANSWER)) is shown
        assert ("Miller" in only(traces).to_json()) is shown
        traces.close()
