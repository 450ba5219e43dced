"""Spans as the mesh records them: those of opentelemetry-sdk, at a tenth of their price.

The sdk's own span locks, copies and checks every value when it is set, and copies itself when it
ends: 13.5 us with four attributes. A query has some 15 spans and costs a mesh of null engines 3 ms
of CPU, and nearly all spans are thrown away unread. So this one keeps what it is given, 1.3 us, and
checks it when it is read. It is a `ReadableSpan`: processors, encoders and exporters are the sdk's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util import types

from raglan import redaction
from raglan.telemetry import semconv
from raglan.telemetry.semconv import Documents

MAX_ATTRIBUTES: Final = 64
"""Of a span, before a `Documents` becomes many."""
MAX_VALUE_CHARS: Final = 4_096
MAX_EVENTS: Final = 32
MAX_LINKS: Final = 128

Packed: TypeAlias = tuple[Any, ...]
"""A span without a reader. Python's garbage collector does not walk tuples of plain values: as
objects, the spans that a process remembers would hold it up for 5 to 20 ms every few seconds."""

_FIXED: Final = 12
"""Of a packed span; then come the keys, then the values."""

_ATOMS: Final = frozenset((str, int, float, bool, type(None)))
_DOCUMENTS: Final = "documents"
_LIST: Final = "list"

_UNSET: Final = Status(StatusCode.UNSET)
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
"""Of every context: whether a trace is kept is decided at its end, whatever its caller thought."""


def new_context(parent: SpanContext | None) -> SpanContext:
    """The context of a new span: in the trace of `parent`, or in a new trace."""
    if parent is None:
        return SpanContext(_random(128), _random(64), False, SAMPLED)
    return SpanContext(parent.trace_id, _random(64), False, SAMPLED, parent.trace_state)


def _random(bits: int) -> int:
    return random.getrandbits(bits) or 1


class RecordedSpan(ReadableSpan, trace.Span):
    """A span; read-only after `end`. Bound to one thread until then."""

    # What most spans never have costs nothing to leave out.
    _status = _UNSET
    _events: Sequence[Event] = ()
    _links: Sequence[Link] = ()
    _end_time: int | None = None
    _instrumentation_info = None
    _lost_events = 0

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self.tracer = tracer
        self._name = name
        self._context: SpanContext = context
        self._parent = parent
        self._kind = kind
        self._given: dict[str, Any] = dict(attributes) if attributes else {}
        self._start_time: int = time.time_ns()

    # --- Writing ----------------------------------------------------------------------------------

    def end(self, end_time: int | None = None) -> None:
        """Close the span. A second time does nothing."""
        if self._end_time is None:
            self._end_time = end_time or time.time_ns()
            self.tracer.processor.on_end(self)

    def is_recording(self) -> bool:
        """True until the span has ended."""
        return self._end_time is None

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute; past the limit of their number it is left out."""
        if self._end_time is None and len(self._given) < MAX_ATTRIBUTES:
            self._given[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several."""
        if self._end_time is None and len(self._given) + len(attributes) <= MAX_ATTRIBUTES:
            self._given.update(attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set how it went. The first word counts."""
        if self._end_time is None and self._status is _UNSET:
            self._status = status if isinstance(status, Status) else Status(status, description)

    def was(self, start_time: int, links: Sequence[Link]) -> None:
        """Correct when it began, and set what it points at."""
        self._start_time = start_time
        self._links = tuple(links)[:MAX_LINKS]

    @property
    def has_status(self) -> bool:
        """True if a status was set."""
        return self._status is not _UNSET

    def update_name(self, name: str) -> None:
        """Rename it."""
        self._name = name

    def add_event(
        self, name: str, attributes: types.Attributes = None, timestamp: int | None = None
    ) -> None:
        """Note that something happened now."""
        if self._end_time is not None or len(self._events) >= MAX_EVENTS:
            self._lost_events += 1
            return
        self._events = (*self._events, Event(name, _bounded(attributes or {}), timestamp))

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        """Point at a span of another trace."""
        if self._end_time is None and len(self._links) < MAX_LINKS:
            self._links = (*self._links, Link(context, attributes))

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception by its class. Its text may quote a request."""
        self.add_event("exception", {"exception.type": type(exception).__name__}, timestamp)

    # --- Keeping ----------------------------------------------------------------------------------

    def packed(self) -> Packed:
        """The ended span as a flat tuple, which begins with when it ended."""
        parent, state, given = self._parent, self._context.trace_state, self._given
        if not _ATOMS.issuperset(map(type, given.values())):
            given = {key: _packed(value) for key, value in given.items()}
        return (
            self._end_time,
            self._start_time,
            self._name,
            self._kind.value,
            self._context.span_id,
            parent.span_id if parent else 0,
            self._status.status_code.value,
            self._status.description,
            state.to_header() if state else None,
            self._events or None,
            self._links or None,
            self._lost_events,
            *given,
            *given.values(),
        )

    @classmethod
    def unpacked(cls, tracer: Tracer, trace_id: int, packed: Packed) -> RecordedSpan:
        """The span of this trace that was `packed`."""
        end, start, name, kind, span_id, parent_id, code, sentence, state, events, links, lost = (
            packed[:_FIXED]
        )
        traced = TraceState.from_header([state]) if state else None
        context = SpanContext(trace_id, span_id, False, SAMPLED, traced)
        parent = SpanContext(trace_id, parent_id, False, SAMPLED, traced) if parent_id else None
        half = (len(packed) + _FIXED) // 2
        keys, values = packed[_FIXED:half], packed[half:]
        given = dict(zip(keys, map(_unpacked, values), strict=True))
        span = cls(tracer, name, context, parent, SpanKind(kind), given)
        span._start_time, span._status = start, Status(StatusCode(code), sentence)
        span._events, span._links, span._lost_events = events or (), links or (), lost
        span._end_time = end
        return span

    # --- Reading ----------------------------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Its ids."""
        return self._context

    @property
    def _attributes(self) -> dict[str, Any]:  # type: ignore[override]
        """The attributes for the SDK, cut to its limits."""
        return _bounded(self._given)

    @property
    def packed_attributes(self) -> dict[str, Any]:
        """The attributes with ranked lists packed, for readers who can unpack them.

        An unpacked list takes as much as ten spans.
        """
        return _bounded(self._given, _in_one)

    @property
    def resource(self) -> Any:
        """Resource of the span."""
        return self.tracer.resource

    @property
    def instrumentation_scope(self) -> Any:
        """Instrumentation scope of the span."""
        return self.tracer.scope

    @property
    def dropped_events(self) -> int:
        """Events past the limit."""
        return self._lost_events


def _packed(value: Any) -> Any:
    if isinstance(value, Documents):
        return _DOCUMENTS, value.packed
    return (_LIST, *value) if isinstance(value, list | tuple) else value


def _unpacked(value: Any) -> Any:
    if type(value) is not tuple:
        return value
    kind, *items = value
    return Documents.unpacked(items[0]) if kind is _DOCUMENTS else items


def _one_by_one(documents: Documents, name: str) -> Iterator[tuple[str, Any]]:
    return ((each, _cut(value)) for each, value in documents.attributes(name))


def _in_one(documents: Documents, name: str) -> Iterator[tuple[str, Any]]:
    ids, contents = map(_cut, documents.ids), map(_cut, documents.contents)
    readable = Documents(list(ids), documents.scores, list(contents))
    yield name + semconv.PACKED, readable.packed.decode()


def _bounded(
    attributes: Mapping[str, Any],
    shown: Callable[[Documents, str], Iterator[tuple[str, Any]]] = _one_by_one,
) -> dict[str, Any]:
    bounded: dict[str, Any] = {}
    for key, value in attributes.items():
        if isinstance(value, Documents):
            bounded.update(shown(value, key))
        elif value is not None:
            bounded[key] = _cut(value)
    return bounded


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return redaction.text(value[:MAX_VALUE_CHARS])
    if isinstance(value, list | tuple):
        return [_cut(each) for each in value[:MAX_ATTRIBUTES]]
    return value


class Tracer:
    """Makes them. Every span is recorded: the decision to keep a trace falls at its end."""

    def __init__(self, resource: Resource, processor: SpanProcessor, scope: str) -> None:
        """Register `processor` for every span that ends."""
        self.resource = resource
        self.processor = processor
        self.scope = InstrumentationScope(scope)

    def begin(
        self,
        name: str,
        parent: SpanContext | None,
        attributes: Mapping[str, Any] | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> RecordedSpan:
        """A span under `parent`; without one, the first of a new trace."""
        return RecordedSpan(self, name, new_context(parent), parent, kind, attributes)
