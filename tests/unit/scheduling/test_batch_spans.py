"""The span of a device batch: whose it is, whom it served, how it ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.rpc.timing import record_timing
from raglan.scheduling import Dispatcher, Lane, LatencyModel, Limits, Pool
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing

POISON = -1


class Engine:
    """Gives back its items; waits before a batch while `hold` is unset, and after it has begun."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.began = threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.began.set()
        assert self.hold.wait(10), "the test never let the engine go on"
        if POISON in items:
            raise RuntimeError("what Mrs Miller asked")
        return items


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


def queue(engine: Engine) -> Dispatcher[int, int]:
    return Dispatcher(
        [Pool([engine])],
        limits=Limits(batch_tokens=10_000, batch_items=1_000, waiting_items=10_000, window=1_000),
        latency=lambda: LatencyModel(seconds_per_token=1e-6, overhead_s=1e-3),
        stalled_after_s=30,
        name="test",
    )


async def ask(dispatcher: Dispatcher[int, int], *items: int) -> SpanContext:
    """One request in a trace of its own; the context of its span."""
    with request_context.incoming({}, "request"):
        mine = tracing.context()
        assert mine is not None
        _, timing = await dispatcher.run(
            items, [1] * len(items), deadline=Deadline.after(10), lane=Lane.INTERACTIVE
        )
        record_timing(timing)
        return mine


def batches(traces: tracing.Tracing, requests: Sequence[SpanContext]) -> list[ReadableSpan]:
    """Every batch span in the traces of `requests`."""
    return [
        span
        for trace_id in {request.trace_id for request in requests}
        for span in traces.recent.of(trace_id)[0]
        if span.name == semconv.BATCH
    ]


async def served(requests: int, traces: tracing.Tracing) -> tuple[list[SpanContext], ReadableSpan]:
    """So many requests that wait behind one and then run together, and the span of their batch."""
    engine = Engine()
    dispatcher = queue(engine)
    try:
        before = asyncio.create_task(ask(dispatcher, 0))
        await asyncio.to_thread(engine.began.wait, 5)
        asking = [asyncio.create_task(ask(dispatcher, 2, 3)) for _ in range(requests)]
        await asyncio.sleep(0)
        engine.hold.set()
        contexts = list(await asyncio.gather(*asking))
        await before
    finally:
        engine.hold.set()
        await dispatcher.close()
    (span,) = batches(traces, contexts)
    return contexts, span


async def test_a_batch_links_to_each_of_its_requests_once(traces: tracing.Tracing) -> None:
    requests, batch = await served(3, traces)
    linked = {(link.context.trace_id, link.context.span_id) for link in batch.links}
    assert linked == {(each.trace_id, each.span_id) for each in requests}
    assert len(batch.links) == 3
    assert batch.attributes is not None
    assert batch.attributes[semconv.BATCH_SIZE] == 6
    assert batch.attributes[semconv.BATCH_REQUESTS] == 3
    assert batch.attributes[semconv.LANE] == "interactive"


async def test_a_batch_belongs_to_the_trace_of_one_of_them(traces: tracing.Tracing) -> None:
    requests, batch = await served(2, traces)
    assert batch.parent in requests
    assert batch.start_time is not None
    assert batch.end_time is not None
    assert batch.start_time <= batch.end_time


async def test_a_request_points_at_the_batch_that_runs_in_anothers_trace(
    traces: tracing.Tracing,
) -> None:
    requests, batch = await served(3, traces)
    pointing = 0
    for request in requests:
        (span,) = [s for s in traces.recent.of(request.trace_id)[0] if s.name == "request"]
        assert span.attributes is not None
        assert {semconv.QUEUE_MS, semconv.COMPUTE_MS} <= span.attributes.keys()
        if request.trace_id != batch.context.trace_id:
            assert [link.context for link in span.links] == [batch.context]
            pointing += 1
    assert pointing == 2


async def test_a_batch_of_very_many_links_to_no_more_than_a_span_may(
    traces: tracing.Tracing,
) -> None:
    _, batch = await served(300, traces)
    assert len(batch.links) == 128
    assert batch.attributes is not None
    assert batch.attributes[semconv.BATCH_REQUESTS] == 300


async def test_a_batch_that_fails_is_an_error_and_quotes_nobody(traces: tracing.Tracing) -> None:
    engine = Engine()
    engine.hold.set()
    dispatcher = queue(engine)
    with request_context.incoming({}, "request"):
        mine = tracing.context()
        with pytest.raises(RaglanError):
            await dispatcher.run([POISON], [1], deadline=Deadline.after(10), lane=Lane.INTERACTIVE)
    await dispatcher.close()
    assert mine is not None
    (batch,) = batches(traces, [mine])
    assert batch.status.status_code is StatusCode.ERROR
    assert "Miller" not in batch.to_json()


async def test_work_that_nobody_traces_makes_no_span(traces: tracing.Tracing) -> None:
    engine = Engine()
    engine.hold.set()
    dispatcher = queue(engine)
    await dispatcher.run([1], [1], deadline=Deadline.after(10), lane=Lane.BULK)
    await dispatcher.close()
    assert len(traces.recent) == 0
