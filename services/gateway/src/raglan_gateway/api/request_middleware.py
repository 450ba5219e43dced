"""The outermost layer of every request: identity, admission, shutdown, one log line, one count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from raglan.errors import Internal, Overloaded, RaglanError, Unavailable
from raglan.lifecycle import Lifecycle
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.telemetry.metrics import OTHER
from raglan.v1.traces_pb2 import RequestOutcome
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway import answer_id, reply_headers
from raglan_gateway.access.audit import AuditLog
from raglan_gateway.access.routes import rule_of
from raglan_gateway.admission.admission import PROBES, QUERIES, Admission, has_body
from raglan_gateway.error_reply import reply
from raglan_gateway.metrics import Metrics
from raglan_gateway.traces import request_outcome
from raglan_gateway.traces.reporter import TraceReporter

log: Final = structlog.get_logger()
_UNTRACED: Final = (*PROBES, "/v1/status", "/v1/traces", "/openapi.json", "/docs")
"""Paths that are polled, or that show traces themselves."""

_SECURITY: Final = (
    # A browser takes a stored document for no script, and shows the API in no frame.
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of every reply, but to a head that is no HTTP."""

_DISCARD_S: Final = 5.0
"""Longest time for which the rest of a body is read after the reply to its request."""


class Exchange:
    """The messages of one request and its reply, on their way between server and routes."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        self.status = 0
        """Status of the reply; 0 before it begins."""
        self.added: list[tuple[bytes, bytes]] = [*_SECURITY]
        """Headers for the reply."""
        self.on_start: Callable[[], None] = lambda: None
        self._scope = scope
        self._receive = receive
        self._send = send
        last = scope["http_version"] == "1.0" or headers.get("connection", "").lower() == "close"
        # Before a further request the server discards the rest of a body itself.
        self._discards = last and has_body(headers) and "expect" not in headers

    async def receive(self) -> Message:
        """Receive the next message of the request."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._discards = False
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the reply. Before the connection closes, its end waits for the body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                *self.added,
                *reply_headers.added(self._scope),
            ]
            self.on_start()
        elif self._discards and self.status != 408 and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._discard_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _discard_body(self) -> None:
        # Closing while the client sends resets the connection, which loses the reply.
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while self._discards:
                    await self.receive()


class RequestMiddleware:
    """ASGI middleware around the routes.

    A request that still runs after the grace period of a shutdown is answered with 503. A reply
    that has begun is left alone: streams of events end themselves, with an `error`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        lifecycle: Lifecycle,
        metrics: Metrics,
        reporter: TraceReporter,
        audit: AuditLog,
    ) -> None:
        self.app = app
        self._admission = admission
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._reporter = reporter
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        exchange = Exchange(scope, receive, send, headers)
        try:
            self._admission.check_load(scope, headers)
        except Overloaded as error:
            # Without a trace: a refusal must cost little, or it becomes the load.
            self._metrics.failed(error)
            id_ = headers.get("x-request-id", "")
            response = reject(self._metrics, error, scope["method"], scope["path"], id_)
            await response(scope, receive, exchange.send)
            return
        name = "" if scope["path"].startswith(_UNTRACED) else scope["method"]
        attributes = {semconv.HTTP_METHOD: scope["method"], semconv.KIND: semconv.CHAIN}
        with request_context.incoming(headers, name, attributes) as request_id:
            answer_id.begin(request_id, headers.get(request_context.REQUEST_ID, ""))
            await self._serve(scope, exchange, request_id, headers)

    async def _serve(
        self,
        scope: Scope,
        exchange: Exchange,
        request_id: str,
        headers: Mapping[str, str],
    ) -> None:
        started = time.monotonic()
        span = tracing.current()
        outcome = request_outcome.begin(span.get_span_context().trace_id, headers)
        if span.is_recording():
            self._reporter.begin(outcome)
        exchange.added.append((b"x-request-id", request_id.encode()))
        if traceparent := request_context.headers(span).get("traceparent"):
            exchange.added.append((b"traceparent", traceparent.encode()))
        try:
            async with (
                self._lifecycle.cancel_on_shutdown() as limit,
                self._admission.admit(scope, exchange.receive, headers) as admitted,
            ):
                exchange.on_start = partial(self._lifecycle.exempt, limit)
                await self.app(scope, admitted, exchange.send)
        except RaglanError as refused:  # the app answers its own
            if exchange.status:
                raise
            if isinstance(refused, Unavailable):  # the caller's own rate is no fault of ours
                self._count_failure(scope, refused)
            await reply(refused, path=scope["path"])(scope, exchange.receive, exchange.send)
        except Exception as unexpected:
            self._count_failure(scope, unexpected)
            log.exception("unexpected error", path=scope["path"])
            if exchange.status:
                raise
            error = Internal("The gateway met an error of its own.")
            await reply(error, path=scope["path"])(scope, exchange.receive, exchange.send)
        finally:
            # A client that left before the reply began has no status; 499 is the custom for it.
            outcome.status, outcome.elapsed_s = exchange.status or 499, time.monotonic() - started
            outcome.route = getattr(scope.get("route"), "path", None) or (
                scope["path"] if scope["path"] in QUERIES else OTHER
            )
            self._record(scope, outcome, span)
            if 200 <= exchange.status < 300:
                self._record_change(scope)

    def _record_change(self, scope: Scope) -> None:
        if action := rule_of(scope["method"], scope["path"]).action:
            self._audit.record(action, scope["path"].removeprefix("/v1/"))

    def _count_failure(self, scope: Scope, error: Exception) -> None:
        if scope["path"] in QUERIES:
            self._metrics.failed(error)

    def _record(self, scope: Scope, outcome: RequestOutcome, span: trace.Span) -> None:
        method, route, status = scope["method"], outcome.route, outcome.status
        self._metrics.served(method, route, status, outcome.elapsed_s)
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attributes(
                {
                    semconv.HTTP_ROUTE: route,
                    semconv.HTTP_STATUS: status,
                    semconv.REQUEST_ID: request_context.request_id(),
                }
            )
            request_outcome.show(outcome, span)
            if status >= 499:
                span.set_status(StatusCode.ERROR)
            self._reporter.record(outcome)
        level = log.debug if scope["path"] in PROBES else log.info
        level(
            "request",
            method=method,
            route=route,
            status=status,
            elapsed_ms=round(outcome.elapsed_s * 1e3, 1),
        )


def reject(
    metrics: Metrics, error: RaglanError, method: str = OTHER, route: str = OTHER, id_: str = ""
) -> Response:
    """Build, count and log the reply to a request that is refused by its head, without a trace.

    Args:
        metrics: counts it.
        error: the refusal.
        method: HTTP method.
        route: template of the route, or "other".
        id_: the request id as the client sent it.
    """
    id_ = request_context.id_from(id_)
    response = reply(error, request_id=id_, path=route)
    response.headers["X-Request-ID"] = id_
    status = response.status_code
    metrics.served(method, route, status, 0.0)
    log.info("request", request_id=id_, method=method, route=route, status=status, elapsed_ms=0.0)
    return response
