"""Reports to the tracer: how requests ended, and this process's spans of the traces it keeps.

No request waits for it. While the tracer is away the newest outcomes wait, within a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.rpc import trace_service
from raglan.rpc.pool import EndpointPool
from raglan.v1 import traces_pb2

log: Final = structlog.get_logger()

EVERY_S: Final = 0.5
MAX_WAITING: Final = 4_096
"""Outcomes, some hundred bytes each; past it the oldest are dropped."""

_AT_ONCE: Final = 1_024
_TRACES_AT_ONCE: Final = 32
_REPORT_S: Final = 2.0
_LAST_REPORT_S: Final = 1.0
_FOLLOW_S: Final = 10.0
"""For so long after the tracer wanted spans, it is asked whether it wants those that ended late."""


class TraceReporter:
    """Make it, and `start` it inside a running event loop; close it before the tracer's pool.

    Args:
        tracer: None reports nothing.
    """

    def __init__(self, tracer: EndpointPool | None) -> None:
        self._tracer = tracer
        self._waiting: deque[traces_pb2.RequestOutcome] = deque(maxlen=MAX_WAITING)
        self._running: set[bytes] = set()
        self._reporting = asyncio.Lock()
        self._wanted: list[bytes] = []
        self._follow_until = float("-inf")
        self.works = True
        """True if the last report arrived."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to report."""
        if self._tracer is not None:
            report = partial(self._run, self._tracer)
            self._task = asyncio.create_task(keep_running("report traces", report))

    async def close(self) -> None:
        """Report what there is, for a second at most."""
        if self._task is None or self._tracer is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
        await self._report_all(self._tracer, Deadline.after(_LAST_REPORT_S), is_last=True)

    def begin(self, outcome: traces_pb2.RequestOutcome) -> None:
        """Take note of a request that begins; `record` it at its end."""
        self._running.add(outcome.trace_id)

    def record(self, outcome: traces_pb2.RequestOutcome) -> None:
        """Take note of a request that has ended. Never waits."""
        self._running.discard(outcome.trace_id)
        if self._tracer is not None:
            self._waiting.append(outcome)

    async def request_for(self, trace_id: bytes) -> traces_pb2.GetTraceRequest:
        """The request for a trace, once the tracer knows how its requests ended."""
        if self._tracer is not None and self._waiting:
            await self._report_all(self._tracer, Deadline.after(_REPORT_S))
        running = trace_id in self._running
        spans = await trace_service.collect([trace_id])
        return traces_pb2.GetTraceRequest(trace_id=trace_id, spans=spans, running=running)

    @property
    def waiting(self) -> int:
        """Outcomes that wait to be reported."""
        return len(self._waiting)

    async def _run(self, tracer: EndpointPool) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._waiting or time.monotonic() < self._follow_until:
                await self._report_all(tracer, Deadline.after(_REPORT_S))

    async def _report_all(
        self, tracer: EndpointPool, deadline: Deadline, *, is_last: bool = False
    ) -> None:
        """Report all outcomes, and deliver the spans that were wanted before.

        Those that the tracer wants now are delivered with the next report: the last spans of a
        request end a moment after it. In the last report they are delivered at once.
        """
        async with self._reporting:
            await self._report(tracer, deadline)
            while self.works and deadline.remaining_s() > 0:
                if not self._waiting and not (is_last and self._wanted):
                    return
                await self._report(tracer, deadline)

    async def _report(self, tracer: EndpointPool, deadline: Deadline) -> None:
        taken = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        wanted, self._wanted = self._wanted[:_TRACES_AT_ONCE], self._wanted[_TRACES_AT_ONCE:]
        request = traces_pb2.ReportRequest(
            outcomes=taken, spans=await trace_service.collect(wanted)
        )
        try:
            reply = await tracer.call("Report", request, deadline=deadline, retry=False)
        except RaglanError as error:
            # Of a report whose reply was lost the tracer knows the traces: a second one is no harm.
            room = MAX_WAITING - len(self._waiting)
            self._waiting.extendleft(reversed(taken[-room:] if room else []))
            self._change(works=False, reason=error.message)
            return
        self._change(works=True)
        self._wanted += reply.wanted
        if reply.wanted:
            self._follow_until = time.monotonic() + _FOLLOW_S

    def _change(self, *, works: bool, reason: str = "") -> None:
        if works is not self.works:
            self.works = works
            log.info("traces are reported again") if works else log.warning(
                "the tracer takes no reports; the newest outcomes wait", reason=reason
            )
