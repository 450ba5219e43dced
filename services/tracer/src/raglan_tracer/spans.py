"""The spans of one trace, each once, from wherever they come, and not more than a bound of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import (
    ResourceSpans,
    ScopeSpans,
    Span,
    SpanFlags,
    Status,
    TracesData,
)

MAX_SPAN_BYTES: Final = 64 * 1024
"""In memory, as `cost_of` has it."""

MAX_RESOURCE_BYTES: Final = 16 * 1024
_PART_COST: Final = 100
"""Bytes that an attribute, event, link or value takes beside its contents."""

MAX_SPAN_PARTS: Final = MAX_SPAN_BYTES // _PART_COST
_TRACE_COST: Final = 2_000
"""Bytes that a trace takes beside its spans."""
MAX_TRACE_BYTES: Final = 8 * 1024 * 1024
_REMEMBERED: Final = 20
"""Times the bound: of how many spans, dropped ones included, it is known that they were here."""


class TraceSpans:
    """The spans of one trace, within a bound.

    Of more spans than the bound the first ones are kept, and then, in the last tenth, entries into
    a service and failed spans. What is dropped is counted.
    """

    def __init__(self, max_spans: int) -> None:
        self.dropped = 0
        self._max = max_spans
        self._ordinary = max_spans - max_spans // 10
        self.size = _TRACE_COST
        """Bytes that they take in memory, about, their resources included."""
        self._kept = 0
        self._seen: set[bytes] = set()
        self._data = TracesData()
        self._packed = b""
        """Compressed form of `data` while it is not in use."""
        self._by_resource: dict[bytes, ScopeSpans] = {}

    @classmethod
    def parsed(cls, data: bytes, max_spans: int, dropped: int = 0) -> TraceSpans:
        """Restore from the result of `packed`."""
        spans = cls(max_spans)
        for resource, span in each(TracesData.FromString(data)):
            spans.add(resource, span, chosen=True)
        spans.dropped += dropped
        return spans

    @property
    def data(self) -> TracesData:
        """The spans; do not change them."""
        if self._packed:
            self._data.ParseFromString(self._packed)
            self._packed = b""
            for of_resource in self._data.resource_spans:
                self._by_resource[_key(of_resource.resource)] = of_resource.scope_spans[0]
        return self._data

    def packed(self) -> bytes:
        """The spans as a serialized `TracesData`.

        They are kept in this form until they are used again: it takes a quarter of the memory.
        """
        if not self._packed:
            self._packed = self._data.SerializeToString()
            self._by_resource.clear()
            self._data = TracesData()
        return self._packed

    def __len__(self) -> int:
        """Spans kept."""
        return self._kept

    def __contains__(self, span_id: bytes) -> bool:
        """Return whether the span was seen, kept or dropped."""
        return span_id in self._seen

    def add(self, resource: Resource, span: Span, cost: int = 0, *, chosen: bool = False) -> bool:
        """Take `span` in.

        Args:
            resource: the process that made it.
            span: not changed.
            cost: as `cost_of` has it, where it is known.
            chosen: whether it is one that was kept already, elsewhere.

        Returns:
            False when it was here before or is dropped.
        """
        if span.span_id in self._seen:
            return False
        if len(self._seen) < self._max * _REMEMBERED:
            self._seen.add(span.span_id)
        cost = cost or cost_of(span)
        bound = self._max if chosen or _is_important(span) else self._ordinary
        if self._kept >= bound or cost > MAX_SPAN_BYTES or self.size + cost > MAX_TRACE_BYTES:
            self.dropped += 1
            return False
        self._kept += 1
        self.size += cost
        self._of(resource).spans.append(span)
        return True

    def merge(self, other: TraceSpans) -> int:
        """Take in the spans of `other`; how many were new."""
        self.dropped += other.dropped
        return sum(self.add(resource, span, chosen=True) for resource, span in each(other.data))

    def _of(self, resource: Resource) -> ScopeSpans:
        data, key = self.data, _key(resource)
        if (found := self._by_resource.get(key)) is None:
            if len(key) > MAX_RESOURCE_BYTES:
                return self._of(bounded_resource(key))
            of_resource = data.resource_spans.add()
            of_resource.resource.CopyFrom(resource)
            self.size += cost_of(resource)
            found = self._by_resource[key] = of_resource.scope_spans.add()
        return found


def bounded_resource(body: bytes) -> Resource:
    """The resource that `body` is, serialized; of one that is too large its service's name."""
    resource = Resource.FromString(body)
    if len(body) <= MAX_RESOURCE_BYTES:
        return resource
    name = KeyValue(key="service.name", value=AnyValue(string_value=service_of(resource)))
    return Resource(attributes=[name])


def cost_of(message: Resource | Span, *, deep: bool = False) -> int:
    """Bytes that a message takes in memory, about.

    Args:
        message: what was read.
        deep: count values within values too, as is needed for those of unknown origin.
    """
    count = _values if deep else len
    parts = count(message.attributes)
    if isinstance(message, Span):
        parts += len(message.events) + len(message.links)
        if deep:
            parts += sum(_values(event.attributes) for event in message.events)
            parts += sum(_values(link.attributes) for link in message.links)
    return message.ByteSize() + _PART_COST * parts


def _values(attributes: Collection[KeyValue]) -> int:
    count = 0
    waiting = [each.value for each in attributes]
    while waiting and count <= MAX_SPAN_PARTS:
        count += len(waiting)
        waiting = [inner for each in waiting for inner in _inside(each)]
    return count


def _inside(value: AnyValue) -> Iterable[AnyValue]:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return value.array_value.values
    return (each.value for each in value.kvlist_value.values) if kind == "kvlist_value" else ()


def _key(resource: Resource) -> bytes:
    return resource.SerializeToString(deterministic=True)


def each(data: TracesData) -> Iterator[tuple[Resource, Span]]:
    """Every span, with the resource that made it."""
    of_resource: ResourceSpans
    for of_resource in data.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield of_resource.resource, span


def service_of(resource: Resource) -> str:
    """The name of the service that the spans of `resource` are from."""
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return str(attribute.value.string_value)[:200]
    return "unknown"


def failed(span: Span) -> bool:
    """Return whether the span's status is an error."""
    return bool(span.status.code == Status.STATUS_CODE_ERROR)


def _is_important(span: Span) -> bool:
    remote = span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    return bool(not span.parent_span_id or remote or failed(span))
