"""The span of a call, on both of its ends.

Written here, because the interceptors of opentelemetry-instrumentation-grpc have no status for a
handler that crashed or ran out of time, no span for a unary call that was cancelled, and OK for a
stream whose reader left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanKind, Status, StatusCode

from raglan import errors
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError
from raglan.rpc import tenant_calls
from raglan.telemetry import semconv, tracing

_UNTRACED: Final = (
    *(
        "/grpc.health.",
        "/grpc.reflection.",
        "/raglan.v1.TraceService/",
        "/raglan.v1.TracerService/",
    ),
)
_ABOUT: Final = "/GetInfo"
"""Info calls are periodic and have no waiting caller."""

_LEFT_ON_TIME_S: Final = 0.02
"""gRPC cancels a handler when its caller's time is up, which is a little before the handler's own:
the caller's clock started earlier."""


def name_of(method: str) -> str:
    """The span's name for "/raglan.v1.EmbedderService/Embed"; "" for what makes no span."""
    method = tenant_calls.plain(method)
    if method.startswith(_UNTRACED) or method.endswith(_ABOUT):
        return ""
    return method[1:]


def server_attributes(method: str) -> dict[str, Any]:
    """Build the span attributes known when a call arrives."""
    return {semconv.RPC_SYSTEM: semconv.GRPC, semconv.RPC_METHOD: method[1:]}


def status_of(error: BaseException | None) -> str:
    """The gRPC status that a call ends with, by its name."""
    match error:
        case None:
            return "OK"
        case RaglanError():
            return errors.wire(error).status
        case asyncio.CancelledError() | GeneratorExit():
            return "CANCELLED"
        case _:
            return "INTERNAL"


def cancellation_cause(left: BaseException, limit: Deadline | None) -> BaseException:
    """Return the reason of a handler's cancellation by gRPC: caller left or deadline passed."""
    if limit is not None and limit.remaining_s() <= _LEFT_ON_TIME_S:
        return DeadlineExceeded("The deadline passed before the service was done.")
    return left


class Attempt:
    """The span of one call that leaves: `begin` it, and `answered` ends it."""

    __slots__ = ("_began", "_first_by", "_gap_s", "_heard", "_known", "_replies", "span")

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        """`known`: what is known of the attempt beyond the call itself, as attributes."""
        self.span: trace.Span = INVALID_SPAN
        """The parent of what the callee does."""
        self._known = known
        self._replies = 0
        self._began = self._heard = 0.0
        self._first_by: Deadline | None = None
        self._gap_s: float | None = None

    def begin(self, method: Callable[..., Any], remaining_s: float) -> None:
        """The call leaves now; `method` is a stub's. Outside of a trace it makes no span."""
        parent = tracing.context()
        if parent is None:
            return
        name = name_of(getattr(method, "_method", b"").decode())
        if not name:
            self.span = NonRecordingSpan(parent)
            return
        attributes: dict[str, Any] = {
            semconv.RPC_SYSTEM: semconv.GRPC,
            semconv.RPC_METHOD: name,
            semconv.DEADLINE_REMAINING_MS: round(remaining_s * 1e3, 1),
        }
        if self._known:
            attributes |= self._known
        self.span = tracing.begin(name, attributes, parent=parent, kind=SpanKind.CLIENT)

    def streams(self) -> None:
        """It has many replies: the time of the first is worth knowing."""
        self._began = time.monotonic()

    def patience(self, first_by: Deadline, gap_s: float | None) -> None:
        """Record the reader's limits: time of the first reply and the longest gap, in seconds.

        It ends the call as a reader who leaves does, but for another reason.
        """
        self._first_by, self._gap_s = first_by, gap_s

    def replied(self) -> None:
        """One of many replies has come."""
        self._heard = time.monotonic()
        if not self._replies:
            waited_ms = round((self._heard - self._began) * 1e3, 2)
            self.span.set_attribute(semconv.FIRST_REPLY_MS, waited_ms)
        self._replies += 1

    def overtaken(self) -> None:
        """It will be cancelled because another was faster, which is no error."""
        self.span.set_attribute(semconv.ATTEMPT_OVERTAKEN, True)
        self.span.set_status(Status(StatusCode.UNSET))

    def answered(self, error: BaseException | None) -> None:
        """The call is over; `error` is ours, or asyncio's when the caller left."""
        if isinstance(error, asyncio.CancelledError) and self._waited_enough():
            error = DeadlineExceeded("It was silent for longer than its caller waits.")
        if self._began:
            self.span.set_attribute(semconv.REPLIES, self._replies)
        self.span.set_attribute(semconv.RPC_STATUS, status_of(error))
        tracing.end(self.span, error)

    def _waited_enough(self) -> bool:
        # A timer of the loop may be a little early.
        if self._replies:
            silent_s = time.monotonic() - self._heard + _LEFT_ON_TIME_S
            return self._gap_s is not None and silent_s >= self._gap_s
        return self._first_by is not None and self._first_by.remaining_s() <= _LEFT_ON_TIME_S
