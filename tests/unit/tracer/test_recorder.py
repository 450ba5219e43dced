"""From the end of a request to the store and back, over replicas that really serve."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from raglan.errors import Overloaded
from raglan.telemetry import semconv
from raglan.v1.traces_pb2 import ListTracesRequest
from raglan_tracer import collection, pending, recorder, span_buffer
from raglan_tracer.document import trace_json
from raglan_tracer.pending import PendingTrace
from raglan_tracer.sampler import Reason
from raglan_tracer.spans import MAX_RESOURCE_BYTES, MAX_SPAN_BYTES, TraceSpans, cost_of, each
from tracer_bench import LIMIT_S, Bench, bench, names, resource, sent, span


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "TICK_S", 0.02)
    monkeypatch.setattr(pending, "FIRST_S", 0.02)
    monkeypatch.setattr(pending, "AGAIN_S", 0.1)
    monkeypatch.setattr(pending, "JOB_EVERY_S", 0.1)
    monkeypatch.setattr(span_buffer, "SETTLED_S", 0.1)


async def test_a_kept_trace_has_the_spans_of_every_process() -> None:
    async with bench() as mesh:
        trace_id = mesh.end()
        found = await mesh.stored(trace_id, spans=3)
        assert names(found) == {"POST /v1/query", "step 2", "step 3"}
        assert found.summary.complete
        assert found.summary.status == 500
        assert found.summary.reasons == "error"
        assert found.summary.name == "POST /v1/query"


async def test_the_traces_of_a_second_are_asked_for_together_and_twice() -> None:
    async with bench() as mesh:
        ids = {mesh.end() for _ in range(20)}
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting:
                await asyncio.sleep(0.01)
        assert [set(asked) for asked in mesh.embedder.asked] == [ids, ids]


async def ended_asking(mesh: Bench) -> int:
    """How often the embedder was asked, once nothing waits any more."""
    async with asyncio.timeout(LIMIT_S):
        while mesh.traces.waiting:
            await asyncio.sleep(0.01)
    return len(mesh.embedder.asked)


async def test_a_sampled_trace_that_is_whole_is_asked_for_once() -> None:
    async with bench(share=1) as mesh:
        mesh.end(status=200)
        assert await ended_asking(mesh) == 1


async def test_a_call_without_its_other_end_is_asked_for_again() -> None:
    async with bench(share=1) as mesh:
        trace_id = mesh.end(status=200)
        mesh.own.append(span(trace_id, 40, parent=1, kind=Span.SPAN_KIND_CLIENT))
        assert await ended_asking(mesh) == 2


async def test_a_span_that_ends_late_is_fetched_all_the_same() -> None:
    async with bench() as mesh:
        trace_id = mesh.end()
        await mesh.stored(trace_id, spans=3)
        mesh.embedder.spans.append(span(trace_id, 4, parent=2, name="overtaken"))
        assert "overtaken" in names(await mesh.stored(trace_id, spans=4))


async def test_what_is_not_kept_costs_no_call_and_can_be_looked_at_while_it_is_recent() -> None:
    async with bench() as mesh:
        trace_id = mesh.end(status=200)
        assert mesh.traces.waiting == 0
        assert await mesh.traces.newest(ListTracesRequest(limit=50)) == []
        assert names(await mesh.find(trace_id)) == {"POST /v1/query", "step 2", "step 3"}
        assert mesh.embedder.asked == [[trace_id]]
        mesh.own.clear()
        mesh.embedder.spans.clear()
        mesh.retriever.spans.clear()
        assert len(names(await mesh.stored(trace_id, spans=3))) == 3, "looked at, it is kept"


async def test_looking_for_traces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LOOKS", (0.001, 5))
    async with bench() as mesh:
        for number in range(5):
            assert await mesh.find(number.to_bytes(16, "big")) is None
        with pytest.raises(Overloaded):
            await mesh.find(bytes(16))
        assert len(mesh.embedder.asked) == 5


async def test_received_spans_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_buffer, "MAX_BYTES", 50_000)
    held = span_buffer.SpanBuffer(1_000)
    for number in range(1, 100):
        held.add_span(resource("a"), span(number.to_bytes(16, "big"), 1, name="x" * 10_000))
    assert len(held) == 4
    assert held.pop((99).to_bytes(16, "big")) is not None
    for number in range(1, 100):
        held.pop(number.to_bytes(16, "big"))
    assert (len(held), held._bytes) == (0, 0)


async def test_how_a_request_went_is_read_from_its_first_span_where_nobody_told() -> None:
    async with bench() as mesh:
        trace_id = mesh.end(status=200)
        said = {
            semconv.HTTP_ROUTE: AnyValue(string_value="/v1/search"),
            semconv.HTTP_STATUS: AnyValue(int_value=200),
            semconv.HEDGED: AnyValue(bool_value=True),
        }
        mesh.own[0].attributes.extend(KeyValue(key=key, value=said[key]) for key in said)
        found = await mesh.find(trace_id)
        assert found is not None
        shown = found.summary
        assert (shown.route, shown.status, shown.hedged, shown.degraded) == (
            "/v1/search", 200, True, False,
        )  # fmt: skip


async def test_an_unknown_trace_is_not_found_and_not_kept() -> None:
    async with bench() as mesh:
        assert await mesh.find(bytes(15) + b"\1") is None
        assert mesh.traces.waiting == 0


async def test_a_slow_replica_holds_up_no_other_and_is_named() -> None:
    async with bench(ask_s=0.15) as mesh:
        mesh.embedder.delay_s = 60
        begun = time.monotonic()
        found = await mesh.find(mesh.end(status=200))
        assert time.monotonic() - begun < 2
        assert names(found) == {"POST /v1/query", "step 3"}
        assert found is not None
        assert not found.summary.complete
        assert found.summary.missing.startswith("127.0.0.1:")


@pytest.mark.parametrize("junk", [b"\xff" * 40, b"\x0a\x05abc"])
async def test_a_reply_that_cannot_be_read_costs_that_replicas_spans_only(junk: bytes) -> None:
    async with bench() as mesh:
        mesh.embedder.junk = junk
        found = await mesh.stored(mesh.end(), spans=2)
        assert names(found) == {"POST /v1/query", "step 3"}
        assert not found.summary.complete


async def test_only_replicas_that_were_called_can_be_missing() -> None:
    async with bench(ask_s=0.15) as mesh:
        mesh.embedder.delay_s = mesh.retriever.delay_s = 60
        trace_id = mesh.end(status=200)
        found = await mesh.find(trace_id)
        assert found is not None
        both = found.summary.missing.split(",")
        assert len(both) == 2, "nobody knows which were called"
        peer = KeyValue(key=semconv.PEER, value=AnyValue(string_value=both[0]))
        mesh.own.append(span(trace_id, 9, parent=1, kind=Span.SPAN_KIND_CLIENT, attributes=[peer]))
        found = await mesh.find(trace_id)
        assert found is not None
        assert found.summary.missing == both[0]


async def test_what_a_service_has_let_go_of_makes_a_trace_incomplete() -> None:
    async with bench() as mesh:
        mesh.embedder.incomplete = True
        found = await mesh.stored(mesh.end(), spans=3)
        assert not found.summary.complete


async def test_a_trace_without_the_parent_of_a_span_is_incomplete() -> None:
    async with bench() as mesh:
        trace_id = mesh.end()
        mesh.embedder.spans.append(span(trace_id, 7, parent=77))
        mesh.embedder.spans.append(span(trace_id, 8, parent=88))
        assert not (await mesh.stored(trace_id, spans=5)).summary.complete


async def test_a_trace_without_the_parent_of_a_call_is_incomplete() -> None:
    async with bench() as mesh:
        trace_id = mesh.end(status=200)
        mesh.own[:] = [span(trace_id, 5, parent=1, kind=Span.SPAN_KIND_CLIENT)]
        mesh.embedder.spans[:] = [span(trace_id, 2, parent=5)]
        mesh.retriever.spans.clear()
        found = await mesh.find(trace_id)
        assert found is not None
        assert not found.summary.complete


async def test_a_batch_belongs_to_each_trace_that_it_served() -> None:
    async with bench() as mesh:
        first, second = mesh.end(), mesh.end(status=200)
        batch = span(first, 70, parent=2, name=semconv.BATCH)
        for trace_id in (first, second):
            batch.links.add(trace_id=trace_id, span_id=(2).to_bytes(8, "big"))
        mesh.embedder.spans[1].links.add(trace_id=first, span_id=batch.span_id)
        mesh.embedder.spans.append(batch)
        assert semconv.BATCH in names(await mesh.stored(first, spans=4))
        found = await mesh.find(second)
        assert found is not None
        assert names(found) == {"POST /v1/query", "step 2", "step 3", semconv.BATCH}
        assert found.summary.complete
        asked = [each for each in mesh.embedder.asked if each == [first]]
        await mesh.find(second)
        assert [each for each in mesh.embedder.asked if each == [first]] == asked, "it is here"


async def test_a_request_that_points_at_a_batch_is_no_part_of_the_batchs_trace() -> None:
    async with bench() as mesh:
        first, second = mesh.end(), mesh.end()
        batch = span(first, 70, parent=2, name=semconv.BATCH)
        for trace_id in (first, second):
            batch.links.add(trace_id=trace_id, span_id=(2).to_bytes(8, "big"))
        mesh.embedder.spans[1].span_id = (9).to_bytes(8, "big")
        mesh.embedder.spans[1].links.add(trace_id=first, span_id=batch.span_id)
        mesh.embedder.spans.append(batch)
        found = await mesh.stored(first, spans=4)
        spans = each(TraceSpans.parsed(found.spans, max_spans=100).data)
        assert {each_span.trace_id for _, each_span in spans} == {first}


def test_a_batch_is_looked_for_elsewhere_and_whom_a_batch_served_is_not() -> None:
    ours, theirs = bytes(15) + b"1", bytes(15) + b"2"

    def kept_with(name: str) -> PendingTrace:
        pointing = span(ours, 1, name=name)
        pointing.links.add(trace_id=theirs, span_id=(5).to_bytes(8, "big"))
        trace = PendingTrace(ours, (Reason.SAMPLED,), TraceSpans(100), due=0.0, news=0.0, since=0.0)
        trace.add_span(resource("embedder"), pointing, now=0.0)
        return trace

    assert kept_with("Embed").linked_traces() == {theirs}
    assert kept_with(semconv.BATCH).linked_traces() == set()


async def test_a_job_is_asked_for_until_its_span_has_come() -> None:
    async with bench() as mesh:
        trace_id = mesh.end(status=202, started_job=True)
        await mesh.stored(trace_id, spans=3)
        for number in range(4, 8):
            mesh.embedder.spans.append(span(trace_id, number, parent=9))
            found = await mesh.stored(trace_id, spans=number)
            assert not found.summary.complete
        mesh.embedder.spans.append(span(trace_id, 9, parent=1, name=semconv.INGEST_JOB))
        assert (await mesh.stored(trace_id, spans=8)).summary.complete
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting:
                await asyncio.sleep(0.01)


async def test_a_job_from_which_nothing_comes_is_followed_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pending, "JOB_SILENT_S", 0.3)
    async with bench() as mesh:
        mesh.end(status=202, started_job=True)
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting:
                await asyncio.sleep(0.01)


async def test_several_requests_of_one_trace_come_together(tmp_path: Path) -> None:
    async with bench(tmp_path / "t") as mesh:
        trace_id = mesh.end()
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting:
                await asyncio.sleep(0.01)
        mesh.own[:] = [span(trace_id, 21)]
        mesh.report(trace_id, route="/v1/search", status=200, degraded=True)
        found = await mesh.stored(trace_id, spans=4)
        assert found.summary.reasons == "error,degraded"
        assert found.summary.degraded


async def test_what_is_on_its_way_is_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "FIRST_S", 60)
    async with bench(tmp_path / "t") as mesh:
        trace_id = mesh.end()
    async with bench(tmp_path / "t") as mesh:
        assert names(await mesh.find(trace_id)) == {"POST /v1/query"}


async def test_ten_thousand_spans_of_one_trace_are_cut_and_counted() -> None:
    async with bench(max_spans=500, ask_s=LIMIT_S) as mesh:
        trace_id = mesh.end()
        mesh.embedder.spans += [span(trace_id, 10 + n, parent=2) for n in range(10_000)]
        found = await mesh.stored(trace_id, spans=400)
        assert found.summary.spans <= 500
        assert found.summary.dropped == 10_003 - found.summary.spans
        assert not found.summary.complete
        assert len(trace_json(found.summary, found.spans)) < 500_000


async def test_too_many_traces_at_a_time_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "MAX_PENDING", 5)
    monkeypatch.setattr(pending, "FIRST_S", 60)
    async with bench() as mesh:
        for _ in range(8):
            mesh.end()
        assert (mesh.traces.waiting, mesh.traces.dropped) == (5, 3)


async def test_too_many_spans_at_a_time_end_the_wait_of_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "MAX_SPANS", 4)
    monkeypatch.setattr(pending, "AGAIN_S", 60)
    async with bench() as mesh:
        for _ in range(3):
            mesh.end()
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting > 1:
                await asyncio.sleep(0.01)
        assert len(await mesh.traces.newest(ListTracesRequest(limit=50))) >= 2


async def test_a_received_span_joins_its_trace_before_and_after_it_is_kept() -> None:
    async with bench() as mesh:
        number = random.getrandbits(128)
        trace_id = number.to_bytes(16, "big")
        early = sent("vllm", span(trace_id, 50, parent=1, name="early"))
        assert await mesh.traces.receive(early) == 0
        mesh.report(trace_id)
        await mesh.stored(trace_id, spans=1)
        async with asyncio.timeout(LIMIT_S):
            while mesh.traces.waiting:
                await asyncio.sleep(0.01)
        await mesh.traces.receive(sent("vllm", span(trace_id, 51, parent=1, name="late")))
        assert names(await mesh.stored(trace_id, spans=2)) == {"early", "late"}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_spans_that_are_sent_here_take_no_place_from_those_of_the_mesh(when: str) -> None:
    theirs = [span(bytes(16), number) for number in range(100, 200)]
    async with bench(max_spans=10) as mesh:
        number = random.getrandbits(128)
        trace_id = number.to_bytes(16, "big")
        for each_span in theirs:
            each_span.trace_id = trace_id
        mesh.embedder.spans.append(span(trace_id, 2, parent=1, name="the embedder's"))
        if when == "before":
            await mesh.traces.receive(sent("client", *theirs))
        mesh.report(trace_id)
        if when == "after":
            await mesh.traces.receive(sent("client", *theirs))
        found = await mesh.stored(trace_id, spans=10)
        assert "the embedder's" in names(found)
        assert found.summary.dropped == 91


async def test_of_received_traces_errors_and_the_share_are_kept() -> None:
    wrong, right = bytes(15) + b"\1", bytes(15) + b"\2"
    error = Status(code=Status.STATUS_CODE_ERROR)
    arrived = sent("client", span(wrong, 1, status=error), span(right, 2))
    async with bench() as mesh:
        await mesh.traces.receive(arrived)
        found = await mesh.stored(wrong, spans=1)
        assert found.summary.error
        assert [
            each.trace_id for _, each in await mesh.traces.newest(ListTracesRequest(limit=50))
        ] == [wrong]
        for _ in range(2):
            assert await mesh.find(right) is not None, "it is recent"
    async with bench(share=1) as mesh:
        await mesh.traces.receive(arrived)
        await mesh.stored(right, spans=1)


async def test_a_gateway_that_keeps_none_shows_recent_ones() -> None:
    async with bench(keeps=False) as mesh:
        sent_id = bytes(15) + b"\3"
        await mesh.traces.receive(sent("client", span(sent_id, 1)))
        for _ in range(2):
            assert await mesh.find(sent_id) is not None
        trace_id = mesh.end()
        assert mesh.traces.waiting == 0
        assert len(names(await mesh.find(trace_id))) == 3
        assert await mesh.traces.newest(ListTracesRequest(limit=50)) == []


async def test_a_replica_that_fails_is_left_alone_for_a_while_but_not_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collection, "_REST_S", 3_600)
    async with bench(ask_s=0.1) as mesh:
        mesh.embedder.delay_s = 60
        for _ in range(3):
            await mesh.stored(mesh.end(), spans=2)
        asked = len(mesh.embedder.asked)
        assert asked == 1
        await mesh.find(mesh.end(status=200))
        assert len(mesh.embedder.asked) == asked + 1


def test_of_too_many_spans_entries_and_failures_are_kept_longest() -> None:
    spans = TraceSpans(100)
    trace_id = b"\1" * 16
    for number in range(1, 200):
        spans.add(resource("a"), span(trace_id, number, parent=900))
    assert (len(spans), spans.dropped) == (90, 109)
    assert spans.add(resource("a"), span(trace_id, 900))
    assert spans.add(
        resource("a"), span(trace_id, 901, parent=1, status=Status(code=Status.STATUS_CODE_ERROR))
    )
    assert not spans.add(resource("a"), span(trace_id, 5, parent=900)), "dropped once, counted once"
    assert spans.dropped == 109


def test_what_was_kept_is_kept_when_it_is_read_again_in_another_order() -> None:
    spans = TraceSpans(100)
    trace_id = b"\1" * 16
    spans.add(resource("a"), span(trace_id, 1))
    for number in range(2, 91):
        spans.add(resource("b"), span(trace_id, number, parent=1))
    for number in range(200, 210):
        spans.add(resource("a"), span(trace_id, number))
    again = TraceSpans.parsed(spans.packed(), 100)
    assert (len(again), again.dropped) == (len(spans), spans.dropped) == (100, 0)


def test_spans_are_the_same_packed_and_go_on_where_they_were() -> None:
    spans, unpacked = TraceSpans(100), TraceSpans(100)
    trace_id = b"\1" * 16
    for number in range(1, 40):
        # The name of a service that is too long is cut: the cut one must be known again.
        of = resource("abc"[number % 3] if number % 4 else "d" * 2 * MAX_SPAN_BYTES)
        one = span(trace_id, number)
        for each_spans in (spans, unpacked):
            each_spans.add(of, one)
        if number % 7 == 0:
            assert spans.packed() == spans.packed()
    assert not spans.add(resource("a"), span(trace_id, 1)), "it is known, packed or not"
    assert spans.packed() == unpacked.data.SerializeToString()
    assert len(spans) == len(list(each(spans.data))) == 39
    assert len(spans.data.resource_spans) == 4


def test_a_huge_span_is_dropped() -> None:
    spans = TraceSpans(100)
    assert not spans.add(resource("a"), span(b"\1" * 16, 1, name="x" * MAX_SPAN_BYTES))
    assert spans.dropped == 1


async def test_a_trace_in_steady_use_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "FIRST_S", 0.5)
    monkeypatch.setattr(pending, "LONGEST_S", 0.2)
    async with bench() as mesh:
        trace_id = mesh.end()
        asked = len(mesh.embedder.asked)
        async with asyncio.timeout(LIMIT_S):
            while len(mesh.embedder.asked) == asked:
                mesh.report(trace_id)
                await asyncio.sleep(0.05)


async def test_received_resources_are_bounded_by_their_bytes() -> None:
    """Each trace holds a copy of the resource of its spans."""
    held = span_buffer.SpanBuffer(1_000)
    large = resource("a" * 12_000)
    for number in range(1, 5_000):
        held.add_span(large, span(number.to_bytes(16, "big"), 1))
    assert len(held) * 12_000 < span_buffer.MAX_BYTES


def test_a_resource_that_is_too_large_is_named_only() -> None:
    spans = TraceSpans(10)
    named = resource("embedder")
    named.attributes.add(key="x").value.string_value = "x" * 2 * MAX_RESOURCE_BYTES
    spans.add(named, span(b"\1" * 16, 1))
    assert [of.resource for of in spans.data.resource_spans] == [resource("embedder")]


def test_values_within_values_count() -> None:
    nested = AnyValue()
    nested.array_value.values.extend(AnyValue() for _ in range(1_000))
    one = span(b"\1" * 16, 1, attributes=[KeyValue(key="a", value=nested)])
    assert cost_of(one, deep=True) > 100_000
