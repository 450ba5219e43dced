"""A trace on its way into the store: what is known of it, and when it is asked for again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from raglan.telemetry import semconv

from raglan_gateway.traces.spans import TraceSpans, each, failed
from raglan_gateway.traces.store import Summary
from raglan_gateway.traces.verdict import Ended, Reason

FIRST_S: Final = 0.3
"""After the end of a request: its last spans end a moment later."""

AGAIN_S: Final = 5.0
"""For spans that ended late: of a call that was given up, of a batch whose request had left."""

JOB_EVERY_S: Final = 30.0
"""Of a job that runs. Services forget their spans after two minutes."""

JOB_SILENT_S: Final = 600.0
"""A job from which nothing new came for so long is no longer followed."""

_FLAGS: Final = {
    "degraded": semconv.DEGRADED,
    "hedged": semconv.HEDGED,
    "retried": semconv.RETRIED,
}
_FACTS: Final = ("route", "status", "duration_ms", *_FLAGS)
_ORDINARY: Final = frozenset({Reason.SAMPLED, Reason.WANTED, Reason.REFUSED})
_LARGEST_INT: Final = 2**63 - 1


@dataclass(slots=True, eq=False)
class KeptTrace:
    """One trace. Times are readings of a monotonic clock."""

    trace_id: bytes
    reasons: tuple[Reason, ...]
    spans: TraceSpans
    due: float
    news: float
    """When the last new span came, or it began to be kept."""
    ended: Ended | None = None
    """How its request ended; None for one that began elsewhere, or is not known here any more."""
    summary: Summary | None = None
    """As it was in the store, for one that comes from there."""
    asked: int = 0
    missing: frozenset[str] = frozenset()
    """Addresses that did not answer when they were asked last."""
    incomplete: bool = False
    """Whether a service had let go of some of its spans."""
    fresh: bool = False
    """Whether it has spans that are not in the store."""

    @property
    def follows_job(self) -> bool:
        """Whether its work goes on, as far as is known."""
        if Reason.JOB not in self.reasons:
            return False
        return not any(span.name == semconv.INGEST_JOB for _, span in each(self.spans.data))

    def has_another(self, ended: Ended, reasons: tuple[Reason, ...], now: float) -> None:
        """Take note of one more request in the same trace: how it went counts as well."""
        self.reasons = tuple(dict.fromkeys((*self.reasons, *reasons)))
        if self.ended is None:
            self.ended = ended
        for name in _FLAGS:
            setattr(self.ended, name, getattr(self.ended, name) or getattr(ended, name))
        self.due, self.asked = now + FIRST_S, 0

    def take(self, resource: Resource, span: Span, now: float) -> None:
        """One more span, or one that is known."""
        if self.spans.add(resource, span):
            self.fresh = True
            self.news = now

    def elsewhere(self) -> set[bytes]:
        """Other traces, in which there are spans that spans of this one point at."""
        return {
            link.trace_id
            for _, span in each(self.spans.data)
            if span.name != semconv.BATCH  # points at those that it served
            for link in span.links
            if span.trace_id == self.trace_id != link.trace_id and link.span_id not in self.spans
        }

    def was_asked_for(self, now: float) -> bool:
        """Note that the mesh was asked; whether it should be asked again later."""
        self.asked += 1
        if self.asked == 1 and not self._is_whole():
            self.due = now + AGAIN_S
            return True
        if self.follows_job and now - self.news < JOB_SILENT_S:
            self.due = now + JOB_EVERY_S
            return True
        return False

    def summarized(self) -> Summary:
        """What a list shows of it."""
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
        """How its request went: as it was told, else as the store has it, else as its first span
        says."""
        if (ended := self.ended) is not None:
            found = {name: getattr(ended, name) for name in ("route", "status", *_FLAGS)}
            before = self.summary
            flags = {n: found[n] or bool(before and getattr(before, n)) for n in _FLAGS}
            return {**found, **flags, "duration_ms": ended.elapsed_s * 1e3}
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
        """Whether asking again would find nothing new, as far as can be told: it went well, and
        each call has a span on its other end. Most are, and a second time costs as much."""
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
        """Whether nobody kept anything back, and each parent is here but that of the first span,
        which may be the caller's."""
        here = {span.span_id for span in own}
        absent = {
            span.parent_span_id
            for span in own
            if span.parent_span_id and span.parent_span_id not in here
        }
        lacks = self.incomplete or self.spans.dropped or self.follows_job or self._missing(own)
        return bool(own) and not lacks and len(absent) <= 1


def _root(spans: list[Span]) -> Span | None:
    """The first span without a parent, else the first of all."""
    return min(
        spans, key=lambda span: (bool(span.parent_span_id), span.start_time_unix_nano), default=None
    )
