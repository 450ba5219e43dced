"""The spans of this process: who makes them, who keeps them, and how a step ends.

    with tracing.span("rerank", {semconv.KIND: semconv.RERANKER}) as step:
        ...
        step.set_attribute(semconv.TEXTS, len(texts))

Until `install`, or with OTEL_SDK_DISABLED=true, no span is made and only the context travels.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

import raglan
from raglan import errors, redaction
from raglan.context_variables import restore
from raglan.errors import InvalidInput, RaglanError
from raglan.telemetry import semconv, variables
from raglan.telemetry.recent_spans import RecentSpans
from raglan.telemetry.recording import MAX_LINKS, MAX_VALUE_CHARS, RecordedSpan, Tracer, new_context

if TYPE_CHECKING:
    from raglan.telemetry.export import CollectorExport

Attributes: TypeAlias = Mapping[str, Any]
Attached: TypeAlias = tuple[Token[Context], Context]
"""Function that undoes what made a span current."""

_OK: Final = Status(StatusCode.OK)
_WITH_CONTENT: Final = 10
"""A span that holds passages is so much larger at least, and so many fewer are remembered."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """The installed tracing. Close it."""

    recent: RecentSpans
    processor: SpanProcessor
    tracer: Tracer | None
    """None where tracing is switched off."""

    content: bool
    """True if spans carry queries, passages and answers."""

    export: CollectorExport | None = None
    """Exporter, where a collector is configured."""

    def close(self) -> None:
        """Send what is left to a collector, for two seconds at most, and forget the rest."""
        global _installed
        if _installed is self:
            _installed = _NOTHING
        self.processor.shutdown()


def install(service: str, *, recent: RecentSpans | None = None) -> Tracing:
    """From now on this process makes spans, as `service`. Replaces what was installed before.

    Args:
        service: its short name, e.g. "embedder".
        recent: where ended spans are kept.
    """
    global _installed
    environ = os.environ
    content = variables.content(environ)
    fewer = _WITH_CONTENT if content else 1
    if recent is None:
        recent = RecentSpans(max(1, variables.max_spans(environ) // fewer))
    processor: SpanProcessor = recent
    export = None
    if variables.exported(environ) and not variables.disabled(environ):
        # It brings an HTTP client that is needed nowhere else.
        from raglan.telemetry.export import MAX_WAITING, CollectorExport

        export = CollectorExport(max_waiting=MAX_WAITING // fewer)
        processor = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        processor.add_span_processor(recent)
        processor.add_span_processor(export)
    _installed = Tracing(
        recent=recent,
        processor=processor,
        tracer=None
        if variables.disabled(environ)
        else Tracer(_resource(service), processor, semconv.NAMESPACE),
        content=content,
        export=export,
    )
    return _installed


def installed() -> Tracing:
    """Return the installed tracing."""
    return _installed


def begin(
    name: str,
    attributes: Attributes | None = None,
    *,
    parent: SpanContext | None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> trace.Span:
    """A span that is not made current; `end` it. Without a parent it begins a trace."""
    tracer = _installed.tracer
    if tracer is None:
        return NonRecordingSpan(parent or new_context(None))
    return tracer.begin(name, parent, attributes, kind)


def current() -> trace.Span:
    """The span of the step that runs; one that ignores everything where there is none."""
    return trace.get_current_span()


def context() -> SpanContext | None:
    """The context of the step that runs, or None outside of a trace."""
    found = trace.get_current_span().get_span_context()
    return found if found.is_valid else None


def content(text: str) -> str | None:
    """`text` where spans may carry content, else None, which leaves the attribute out."""
    return text[:MAX_VALUE_CHARS] if _installed.content else None


def looked_up(layer: str, hits: int, misses: int) -> None:
    """Say on the current span what a cache had."""
    current().set_attributes(
        {semconv.CACHE_LAYER: layer, semconv.CACHE_HITS: hits, semconv.CACHE_MISSES: misses}
    )


class span:  # noqa: N801 - reads as a statement: with span(...)
    """A step of the request: a span that is current inside the block and ends with it.

    Its status is how the block ends, unless somebody sets it before. Outside of a trace it does
    nothing, so that what runs in the background fills no store.
    """

    __slots__ = ("_attached", "_attributes", "_kind", "_name", "_span")

    def __init__(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._name = name
        self._attributes = attributes
        self._kind = kind

    def __enter__(self) -> trace.Span:
        parent = trace.get_current_span().get_span_context()
        tracer = _installed.tracer
        self._attached: Attached | None = None
        if tracer is None or not parent.is_valid:
            self._span: trace.Span = NonRecordingSpan(parent)
        else:
            self._span = tracer.begin(self._name, parent, self._attributes, self._kind)
            self._attached = attach(self._span)
        return self._span

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if self._attached is not None:
            detach(self._attached)
            end(self._span, error)


def attach(span: trace.Span) -> Attached:
    """Make `span` the current one until what is returned is given to `detach`."""
    context = trace.set_span_in_context(span)
    return otel_context.attach(context), context


def detach(attached: Attached) -> None:
    """Undo `attach`."""
    restore(*attached)


def end(span: trace.Span, error: BaseException | None = None) -> None:
    """End `span` as `error` says, unless its status is known already."""
    if isinstance(span, RecordedSpan):
        if error is not None:
            fail(span, error)
        elif not span.has_status:
            span.set_status(_OK)
        span.end()


def fail(span: trace.Span, error: BaseException) -> None:
    """Say that the step of `span` ended in `error`; it may go on for a while.

    The message is added where it cannot quote a request.
    """
    if not isinstance(span, RecordedSpan) or span.has_status:
        return
    kind, sentence = _described(error)
    span.set_attribute(semconv.ERROR_TYPE, kind)
    if isinstance(error, RaglanError) and error.cause:
        span.set_attribute(semconv.ERROR_CAUSE, redaction.text(error.cause))
    span.set_status(Status(StatusCode.ERROR, sentence))


def _described(error: BaseException) -> tuple[str, str]:
    match error:
        case RaglanError():
            quotes = isinstance(error, InvalidInput) and not _installed.content
            return errors.wire(error).type, "" if quotes else redaction.text(error.message)
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled", "The caller left."
        case TimeoutError():
            return "deadline_exceeded", "The time ran out."
        case _:
            return type(error).__qualname__, "An error of its own."


def record(
    name: str,
    attributes: Attributes,
    *,
    parent: SpanContext,
    interval_ns: tuple[int, int],
    links: Sequence[SpanContext] = (),
    error: BaseException | None = None,
) -> SpanContext | None:
    """A span of something that is over; its context, for others to point at.

    Args:
        name: of the span.
        attributes: of the span.
        parent: context of the parent span.
        interval_ns: when it began and ended, on the clock of `time.time_ns`.
        links: to those it was done for, as many as a span may have.
        error: failure of the batch, or None.
    """
    tracer = _installed.tracer
    if tracer is None:
        return None
    span = tracer.begin(name, parent, attributes)
    span.was(interval_ns[0], [Link(each) for each in links[:MAX_LINKS]])
    if error is None:
        span.set_status(_OK)
    else:
        fail(span, error)
    span.end(interval_ns[1])
    return span.get_span_context()


def _resource(service: str) -> Resource:
    return Resource.create(
        {
            semconv.SERVICE_NAME: service,
            semconv.SERVICE_NAMESPACE: semconv.NAMESPACE,
            semconv.SERVICE_VERSION: raglan.__version__,
            semconv.SERVICE_INSTANCE_ID: (
                f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
            ),
        }
    )


_NOTHING: Final = Tracing(
    recent=RecentSpans(),
    processor=SpanProcessor(),
    tracer=None,
    content=False,
)
_installed = _NOTHING
