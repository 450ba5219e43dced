"""A trace on its way into the store: what is known of it, and when it is collected again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from raglan.telemetry import semconv
from raglan.v1.traces_pb2 import RequestOutcome

from raglan_tracer.sampler import Reason
from raglan_tracer.spans import TraceSpans, each, failed
from raglan_tracer.store import Summary

FIRST_S: Final = 0.8
"""Seconds until the first collection: a gateway delivers its spans half a second after it has
reported how the request ended, because the last of them end a moment later."""

AGAIN_S: Final = 5.0
"""Seconds until the second collection, for spans that ended late: of a call that was given up, of
a batch whose request had left."""

JOB_EVERY_S: Final = 30.0
"""Seconds between collections of a running job. Services forget spans after two minutes."""

JOB_SILENT_S: Final = 600.0
"""Seconds without a new span after which a job is no longer followed."""

LONGEST_S: Final = 10.0
"""A trace in steady use is collected so long after its first request, and again from then on."""

_FLAGS: Final = {
    "degraded": semconv.DEGRADED,
    "hedged": semconv.HEDGED,
    "retried": semconv.RETRIED,
}
_FACTS: Final = ("route", "status", "duration_ms", *_FLAGS)
_ORDINARY: Final = frozenset({Reason.SAMPLED, Reason.WANTED, Reason.REFUSED})
_LARGEST_INT: Final = 2**63 - 1


@dataclass(slots=True, eq=False)
class PendingTrace:
    """One trace. Times are readings of a monotonic clock."""

    trace_id: bytes
    reasons: tuple[Reason, ...]
    spans: TraceSpans
    due: float
    news: float
    """Time of the last new span, or of the start."""
    since: float
    """Time of its first span or report."""
    outcome: RequestOutcome | None = None
    """Outcome of its request; None if none was reported or it was forgotten."""
    summary: Summary | None = None
    """The stored summary, for a trace loaded from the store."""
    collections: int = 0
    """Number of collections of its spans."""
    missing: frozenset[str] = frozenset()
    """Addresses that did not answer at the last collection."""
    incomplete: bool = False
    """True if a service had dropped some of its spans."""
    fresh: bool = False
    """True if it has spans that are not in the store."""

    @property
    def follows_job(self) -> bool:
        """True while its job is believed to run."""
        if Reason.JOB not in self.reasons:
            return False
        return not any(span.name == semconv.INGEST_JOB for _, span in each(self.spans.data))

    def add_outcome(self, outcome: RequestOutcome, reasons: tuple[Reason, ...], now: float) -> None:
        """Add the outcome of one more request in the same trace."""
        self.reasons = tuple(dict.fromkeys((*self.reasons, *reasons)))
        if self.outcome is None:
            self.outcome = outcome
        for name in _FLAGS:
            setattr(self.outcome, name, getattr(self.outcome, name) or getattr(outcome, name))
        if now - self.since < LONGEST_S:
            self.due, self.collections = now + FIRST_S, 0

    def add_span(self, resource: Resource, span: Span, now: float, cost: int = 0) -> None:
        """Take in one more span, or one that is known."""
        if self.spans.add(resource, span, cost):
            self.fresh = True
            self.news = now

    def linked_traces(self) -> set[bytes]:
        """Other traces, in which there are spans that spans of this one point at."""
        return {
            link.trace_id
            for _, span in each(self.spans.data)
            if span.name != semconv.BATCH  # points at those that it served
            for link in span.links
            if span.trace_id == self.trace_id != link.trace_id and link.span_id not in self.spans
        }

    def note_collected(self, now: float) -> bool:
        """Note that it was collected; return whether it should be collected again later."""
        self.collections += 1
        if self.collections == 1 and not self._is_whole():
            self.due = now + AGAIN_S
            return True
        if self.follows_job and now - self.news < JOB_SILENT_S:
            self.due = now + JOB_EVERY_S
            return True
        return False

    def summarize(self) -> Summary:
        """Summarize it for the store and for lists."""
        all_spans = [span for _, span in each(self.spans.data)]
        own = [span for span in all_spans if span.trace_id == self.trace_id] or all_spans
        start_ns = min((span.start_time_unix_nano for span in own), default=0)
        end_ns = max((span.end_time_unix_nano for span in own), default=0)
        root = _root(own)
        facts = self._facts(root, max(0, end_ns - start_ns) / 1e6)
        missing = self._missing(own)
        return Summary(
            trace_id=self.trace_id,
            name=root.name[:200] if root else "",
            error=Reason.ERROR in self.reasons or (root is not None and failed(root)),
            start_ns=min(start_ns, _LARGEST_INT),
            reasons=",".join(self.reasons),
            spans=len(all_spans),
            dropped=self.spans.dropped,
            complete=self._complete(own),
            missing=",".join(sorted(missing)),
            **facts,
        )

    def _facts(self, root: Span | None, elapsed_ms: float) -> dict[str, Any]:
        """Return the request's outcome: reported, else stored, else from the root span."""
        if (outcome := self.outcome) is not None:
            found = {name: getattr(outcome, name) for name in ("route", "status", *_FLAGS)}
            before = self.summary
            flags = {n: found[n] or bool(before and getattr(before, n)) for n in _FLAGS}
            return {**found, **flags, "duration_ms": outcome.elapsed_s * 1e3}
        if self.summary is not None:
            return {name: getattr(self.summary, name) for name in _FACTS}
        said = {each.key: each.value for each in root.attributes} if root else {}
        nothing = AnyValue()
        return {
            "route": said.get(semconv.HTTP_ROUTE, nothing).string_value[:200],
            "status": min(said.get(semconv.HTTP_STATUS, nothing).int_value, 999),
            **{name: said.get(key, nothing).bool_value for name, key in _FLAGS.items()},
            "duration_ms": elapsed_ms,
        }

    def _is_whole(self) -> bool:
        """Return whether a second collection would probably find nothing new.

        The request went well, and each call has a span on its other end. Most do, and a second
        collection costs as much as the first.
        """
        if not _ORDINARY.issuperset(self.reasons):
            return False
        own = [span for _, span in each(self.spans.data) if span.trace_id == self.trace_id]
        parents = {span.parent_span_id for span in own}
        calls = {span.span_id for span in own if span.kind == Span.SPAN_KIND_CLIENT}
        return calls <= parents and self._complete(own)

    def _missing(self, own: list[Span]) -> frozenset[str]:
        """Of the replicas that did not answer, those that were called, as far as is known."""
        if not self.missing:
            return self.missing
        called = {
            attribute.value.string_value
            for span in own
            if span.kind == Span.SPAN_KIND_CLIENT
            for attribute in span.attributes
            if attribute.key == semconv.PEER
        }
        return self.missing & called if called else self.missing

    def _complete(self, own: list[Span]) -> bool:
        """Return whether no span is missing.

        Every parent is here but that of the first span, which may be the caller's.
        """
        here = {span.span_id for span in own}
        orphans = [span for span in own if span.parent_span_id and span.parent_span_id not in here]
        # A call leaves below a span of its own process, so that one is missing.
        cut = any(span.kind == Span.SPAN_KIND_CLIENT for span in orphans)
        cut = cut or len({span.parent_span_id for span in orphans}) > 1
        lacks = self.incomplete or self.spans.dropped or self.follows_job or self._missing(own)
        return bool(own) and not lacks and not cut


def _root(spans: list[Span]) -> Span | None:
    """The first span without a parent, else the first of all."""
    return min(
        spans, key=lambda span: (bool(span.parent_span_id), span.start_time_unix_nano), default=None
    )
