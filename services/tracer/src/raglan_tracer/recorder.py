"""Recording traces: from the outcome of a request to the store, and back on demand.

The kept traces of a second are collected together, and again a few seconds later where something
may have ended late. Any other trace of the last two minutes is found by its id.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog
from cachetools import LRUCache
from raglan.background import keep_running
from raglan.errors import Overloaded, Unavailable
from raglan.telemetry import semconv
from raglan.v1.traces_pb2 import ListTracesRequest, RequestOutcome

from raglan_tracer import pending
from raglan_tracer.collection import Collector, Reply
from raglan_tracer.otlp import SentSpan
from raglan_tracer.pending import PendingTrace
from raglan_tracer.sampler import Reason, TailSampler, TokenBucket
from raglan_tracer.span_buffer import SpanBuffer
from raglan_tracer.spans import TraceSpans, each, failed
from raglan_tracer.store import Summary, TraceStore

log: Final = structlog.get_logger()

TICK_S: Final = 1.0
REPORT_S: Final = 1.0
"""Longest time between two reports of a gateway of which spans are wanted."""

MAX_PENDING: Final = 2_048
"""Traces on their way into the store at a time."""

MAX_SPANS: Final = 100_000
MAX_BYTES: Final = 32 * 1024 * 1024
"""Their spans, packed as most are; past either, the oldest are written as they are."""

LOOKS: Final = (200, 1_000)
"""Traces a second, and at once, that the mesh is asked for because somebody looks for them."""

TAKEN_AT_ONCE: Final = 500
"""Spans, before others get their turn on the loop: a few milliseconds."""

A_ROUND: Final = 64
"""Traces asked for at a time: a few megabytes of spans."""

REMEMBERED: Final = 10_000
"""Traces of which it is known, without asking the store, that they are there."""

_LOOKED_AT_ONCE: Final = 4
_LOOK_S: Final = 3.0
_RECENT_NS: Final = 120 * 10**9
"""Time for which services remember their spans."""


@dataclass(frozen=True, slots=True)
class FoundTrace:
    """A trace with its spans, a serialized `TracesData`."""

    summary: Summary
    spans: bytes


class TraceRecorder:
    """Owns the store and the pending traces. Between `start` and `close` it records."""

    def __init__(
        self,
        store: TraceStore,
        sampler: TailSampler,
        collector: Collector,
        *,
        max_spans: int,
        keeps: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Record nothing before `start`.

        Args:
            store: of the kept traces; owned from here on.
            sampler: decides which are kept.
            collector: of the spans of the mesh.
            max_spans: of one trace.
            keeps: whether traces are kept at all; if not, recent ones can be looked at.
            clock: monotonic, in seconds.
        """
        self.store = store
        self.sampler = sampler
        self.dropped = 0
        """Traces that should be kept, of which there were too many at a time."""
        self.kept: Counter[Reason] = Counter()
        """Number of kept traces by their first reason."""
        self._collector = collector
        self._max_spans = max_spans
        self._keeps = keeps
        self._clock = clock
        self._pending: dict[bytes, PendingTrace] = {}
        # So that late spans find what they belong to, without a look into the file for each trace
        # of which spans are sent here.
        self._stored: LRUCache[bytes, bool] = LRUCache(REMEMBERED)
        self._buffer = SpanBuffer(max_spans, clock=clock)
        self._looking = asyncio.Semaphore(_LOOKED_AT_ONCE)
        self._looks = TokenBucket(*LOOKS, clock=clock)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store and begin."""
        await self.store.open()
        self._task = asyncio.create_task(keep_running("keep traces", self._run))

    async def close(self) -> None:
        """Write what there is, without asking anybody any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._take_received({i: t for i, t in self._pending.items() if not t.collections})
        await self._write(self._pending.values())
        self._pending.clear()
        await self.store.close()

    def record_outcome(self, outcome: RequestOutcome) -> bool:
        """Decide by how a request ended whether its trace is kept. Costs microseconds."""
        if not self._keeps or not (reasons := self.sampler.decide(outcome)):
            return False
        if (trace := self._pending.get(outcome.trace_id)) is None:
            return self._keep(self._new(outcome.trace_id, reasons, outcome))
        trace.add_outcome(outcome, reasons, self._clock())
        return True

    async def add_reported(self, spans: Reply) -> None:
        """Take in what a gateway delivers of its own spans."""
        await self._take(self._pending, spans)

    def due_soon(self) -> list[bytes]:
        """Traces that are about to be collected again: spans of a gateway may have ended late."""
        soon = self._clock() + REPORT_S
        return [i for i, trace in self._pending.items() if trace.collections and trace.due <= soon][
            :A_ROUND
        ]

    async def receive(self, spans: Sequence[SentSpan]) -> int:
        """Take in spans that were sent here; how many were refused for want of room."""
        refused = 0
        for count, (resource, span, cost) in enumerate(spans, 1):
            if count % TAKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
            # What the mesh has of a trace comes first: it must not find all places taken.
            if (trace := self._pending.get(span.trace_id)) is not None and trace.collections:
                trace.add_span(resource, span, self._clock(), cost)
            elif not self._buffer.add_span(resource, span, cost):
                refused += 1
        return refused

    @property
    def waiting(self) -> int:
        """Traces whose spans are still being collected."""
        return len(self._pending)

    async def newest(self, wanted: ListTracesRequest) -> list[tuple[int, Summary]]:
        """The traces of the store; see `TraceStore.newest`."""
        return await self.store.newest(wanted)

    async def find(
        self, trace_id: bytes, own: Reply, *, running: bool = False
    ) -> FoundTrace | None:
        """A trace, from the store or, if it is recent, from the mesh.

        Args:
            trace_id: 16 bytes.
            own: the spans of it that the asking gateway has.
            running: whether a request of it still runs there.

        Returns:
            None when no process has spans of it.

        Raises:
            Overloaded: too many are looked for.
            Unavailable: the disk is too slow.
        """
        trace = self._pending.get(trace_id)
        if trace is None:
            stored = (await self.store.get([trace_id])).get(trace_id)
            if stored is not None and (stored[0].complete or _is_old(stored[0])):
                return FoundTrace(*stored)
            trace = self._new(trace_id, (Reason.LOOKED_AT,))
            if stored is not None:
                self._join(trace, stored)
        await self._take({trace_id: trace}, own)
        await self._look_for(trace)
        if not len(trace.spans):
            return None
        if running:  # its outcome will decide whether it is kept
            return FoundTrace(replace(trace.summarize(), complete=False), trace.spans.packed())
        if trace_id not in self._pending:
            await self._looked_at(trace)
        return FoundTrace(trace.summarize(), trace.spans.packed())

    async def _look_for(self, trace: PendingTrace) -> None:
        """Ask the mesh for `trace` alone.

        Raises:
            Overloaded: too many are looked for, and nothing is known of this one.
        """
        try:
            async with asyncio.timeout(_LOOK_S), self._looking:
                if self._looks.try_acquire():
                    await self._gather({trace.trace_id: trace}, everyone=True)
                    return
        except TimeoutError:
            pass
        if not len(trace.spans):
            raise Overloaded("Too many traces are being looked for.", retry_after_s=1)

    async def _looked_at(self, trace: PendingTrace) -> None:
        """Keep what was found by its id: it may be looked at again."""
        if trace.summary is None and self.sampler.allows(Reason.LOOKED_AT):
            self._keep(trace)
        elif trace.summary is not None and trace.fresh:
            await self._write([trace])

    # --- On the way into the store ----------------------------------------------------------------

    def _new(
        self, trace_id: bytes, reasons: tuple[Reason, ...], outcome: RequestOutcome | None = None
    ) -> PendingTrace:
        now = self._clock()
        spans = TraceSpans(self._max_spans)
        return PendingTrace(
            trace_id,
            reasons,
            spans,
            due=now + pending.FIRST_S,
            news=now,
            since=now,
            outcome=outcome,
        )

    def _keep(self, trace: PendingTrace) -> bool:
        if not self._keeps or len(self._pending) >= MAX_PENDING:
            self.dropped += self._keeps
            return False
        self._pending[trace.trace_id] = trace
        self.kept[trace.reasons[0]] += 1
        return True

    async def _run(self) -> None:
        behind = False
        while True:
            await asyncio.sleep(0 if behind else TICK_S)
            behind = False
            try:
                behind = await self._round()
            except Unavailable as error:
                log.warning("traces wait", reason=error.message)
            except Exception:
                log.exception("traces of a second are lost")

    async def _round(self) -> bool:
        """Ask for what is due, and write what is new. Whether more may be due than one round has.

        Raises:
            Unavailable: the disk is too slow.
        """
        now = self._clock()
        self._judge_received()
        due = [trace for trace in self._pending.values() if trace.due <= now][:A_ROUND]
        if due:
            await self._recall([trace for trace in due if not trace.collections])
            await self._gather({trace.trace_id: trace for trace in due})
        over = [trace for trace in due if not trace.note_collected(self._clock())]
        over += self._too_many()
        await self._write(dict.fromkeys([*over, *(trace for trace in due if trace.fresh)]))
        for trace in over:
            self._pending.pop(trace.trace_id, None)
        return len(due) == A_ROUND

    async def _recall(self, traces: Sequence[PendingTrace]) -> None:
        """Join what the store may have of them: a trace can have many requests, and late spans."""
        if traces:
            stored = await self.store.get([trace.trace_id for trace in traces])
            for trace in traces:
                if trace.trace_id in stored:
                    self._join(trace, stored[trace.trace_id])

    def _too_many(self) -> list[PendingTrace]:
        """The oldest traces, as long as there are too many spans in all."""
        spans = sum(len(trace.spans) for trace in self._pending.values())
        size = sum(trace.spans.size for trace in self._pending.values())
        over = []
        for trace in self._pending.values():
            if spans <= MAX_SPANS and size <= MAX_BYTES:
                break
            spans -= len(trace.spans)
            size -= trace.spans.size
            over.append(trace)
        return over

    async def _gather(
        self, traces: Mapping[bytes, PendingTrace], *, everyone: bool = False
    ) -> None:
        """Ask every service for the spans of `traces`."""
        take = partial(self._take, traces)
        missing = await self._collector.collect(list(traces), take, everyone=everyone)
        for trace in traces.values():
            trace.missing = frozenset(missing)
        # A batch lies in the trace of its first request. The others point at it.
        if elsewhere := {each for trace in traces.values() for each in trace.linked_traces()}:
            some = list(elsewhere - traces.keys())[:A_ROUND]
            await self._collector.collect(some, take, everyone=everyone)
        self._take_received(traces)

    def _take_received(self, traces: Mapping[bytes, PendingTrace]) -> None:
        """Join what was sent here."""
        for trace_id, trace in traces.items():
            held = self._buffer
            received = held.pop(trace_id) if trace_id in self._pending else held.of(trace_id)
            if received is not None:
                trace.fresh = bool(trace.spans.merge(received)) or trace.fresh

    async def _take(self, traces: Mapping[bytes, PendingTrace], reply: Reply) -> None:
        now = self._clock()
        for count, (resource, span) in enumerate(each(reply.data), 1):
            if count % TAKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
            if (trace := traces.get(span.trace_id)) is not None:
                trace.add_span(resource, span, now)
            # A batch on a device belongs to each trace that it served; who points at it does not.
            served = span.links if span.name == semconv.BATCH else ()
            for linked in {link.trace_id for link in served} - {span.trace_id}:
                if (trace := traces.get(linked)) is not None:
                    trace.add_span(resource, span, now)
        for trace_id in reply.incomplete:
            if (trace := traces.get(trace_id)) is not None:
                trace.incomplete = True

    def _join(self, trace: PendingTrace, stored: tuple[Summary, bytes]) -> None:
        """Take in what the store has of a trace that goes on."""
        trace.summary, data = stored
        known = map(Reason, filter(None, trace.summary.reasons.split(",")))
        trace.reasons = tuple(dict.fromkeys((*known, *trace.reasons)))
        trace.spans.merge(TraceSpans.parsed(data, self._max_spans, trace.summary.dropped))

    def _judge_received(self) -> None:
        """Keep of the traces that came by OTLP what the same rules keep."""
        for trace_id, spans in self._buffer.settled():
            wrong = any(failed(span) for _, span in each(spans.data))
            known = trace_id in self._stored
            if known or wrong or self.sampler.in_share(trace_id):
                reasons = (Reason.RECEIVED, Reason.ERROR) if wrong else (Reason.RECEIVED,)
                if self.sampler.allows(Reason.RECEIVED):
                    self._keep(self._new(trace_id, reasons))

    async def _write(self, traces: Iterable[PendingTrace]) -> None:
        written = []
        for trace in [trace for trace in traces if len(trace.spans)]:
            written.append((trace.summarize(), trace.spans.packed()))
            trace.fresh = False
            self._stored[trace.trace_id] = True
            if len(trace.spans) > TAKEN_AT_ONCE:
                await asyncio.sleep(0)
        if self._keeps:
            self.store.put(written)


def _is_old(summary: Summary) -> bool:
    """Return whether the trace is too old for any service to remember it."""
    return time.time_ns() - summary.start_ns - summary.duration_ms * 1e6 > _RECENT_NS
