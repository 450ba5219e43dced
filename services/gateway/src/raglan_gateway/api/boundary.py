"""The border of every request: identity, a bound on how many run, one error shape, one log line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from raglan import errors
from raglan.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)
from raglan.identifiers import shortened
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.telemetry.metrics import OTHER
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway.api.cross_origin import CrossOriginPolicy
from raglan_gateway.api.door import QUERIES
from raglan_gateway.api.problem import reply
from raglan_gateway.metrics import Metrics
from raglan_gateway.shared.rate_limit import RateLimit, caller_of
from raglan_gateway.traces import noted as traces_noted
from raglan_gateway.traces.keeping import Traces
from raglan_gateway.traces.verdict import Ended, caller_sampled

log: Final = structlog.get_logger()
_QUIET: Final = ("/healthz", "/startupz", "/readyz", "/metrics", "/metrics/targets")
"""Paths of probes and Prometheus: exempt from the rate limit, not logged at each request."""

_UNTRACED: Final = (*_QUIET, "/v1/status", "/v1/traces", "/openapi.json", "/docs")
"""What is asked again and again, by nobody who waits for an answer, and of traces itself."""

_SHOWN_CHARS: Final = 100
_SENTENCE_CHARS: Final = 500
_SHOWN_PROBLEMS: Final = 5


class Boundary:
    """ASGI middleware around the routes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_concurrent: int,
        rate_limit: RateLimit,
        traces: Traces,
        cross_origin: CrossOriginPolicy,
    ) -> None:
        self.app = app
        self._traces = traces
        self._cross_origin = cross_origin
        self._rate_limit = rate_limit
        self._metrics = metrics
        self._max_concurrent = max_concurrent
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        name = "" if scope["path"].startswith(_UNTRACED) else scope["method"]
        attributes = {semconv.HTTP_METHOD: scope["method"], semconv.KIND: semconv.CHAIN}
        with request_context.incoming(carrier, name, attributes) as request_id:
            await self._serve(scope, receive, send, request_id, carrier)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        carrier: Mapping[str, str],
    ) -> None:
        started = time.monotonic()
        status = 0
        span = tracing.current()
        noted = traces_noted.begin(span.get_span_context().trace_id)
        noted.caller_sampled = caller_sampled(carrier)
        said = [(b"x-request-id", request_id.encode())]
        if traceparent := request_context.headers(span).get("traceparent"):
            said.append((b"traceparent", traceparent.encode()))

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *said]
            await send(message)

        self._running += 1
        try:
            self._cross_origin.check(scope)
            if scope["path"] not in _QUIET:
                await self._admit(scope)
            await self.app(scope, receive, watched)
        except RaglanError as refused:  # by `_admit`: the app answers its own
            if status:
                raise
            if isinstance(refused, Unavailable):  # the caller's own rate is no fault of ours
                self._not_answered(scope, refused)
            await reply(refused)(scope, receive, watched)
        except Exception as unexpected:
            self._not_answered(scope, unexpected)
            log.exception("unexpected error", path=scope["path"])
            if status:
                raise
            error = Internal("The gateway met an error of its own.")
            await reply(error)(scope, receive, watched)
        finally:
            self._running -= 1
            # A client that left before the reply began has no status; 499 is the custom for it.
            noted.status, noted.elapsed_s = status or 499, time.monotonic() - started
            noted.route = getattr(scope.get("route"), "path", OTHER)
            self._record(scope, noted, span)

    async def _admit(self, scope: Scope) -> None:
        """Raise Unavailable or Overloaded where the request should not even be read."""
        if self._running > self._max_concurrent:
            raise Unavailable(
                f"{self._max_concurrent} requests are in progress; try again soon "
                "(RAGLAN_GATEWAY_MAX_CONCURRENT_REQUESTS).",
                retry_after_s=1,
            )
        await self._rate_limit.admit(caller_of(scope["client"][0] if scope["client"] else ""))

    def _not_answered(self, scope: Scope, error: Exception) -> None:
        if scope["path"] in QUERIES:
            self._metrics.failed(error)

    def _record(self, scope: Scope, noted: Ended, span: trace.Span) -> None:
        method, route, status = scope["method"], noted.route, noted.status
        self._metrics.served(method, route, status, noted.elapsed_s)
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attributes(
                {
                    semconv.HTTP_ROUTE: route,
                    semconv.HTTP_STATUS: status,
                    semconv.REQUEST_ID: request_context.request_id(),
                }
            )
            traces_noted.show(noted, span)
            if status >= 499:
                span.set_status(StatusCode.ERROR)
            self._traces.ended(noted)
        level = log.debug if scope["path"] in _QUIET else log.info
        level(
            "request",
            method=method,
            route=route,
            status=status,
            elapsed_ms=round(noted.elapsed_s * 1e3, 1),
        )


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` leave in the envelope."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RaglanError)
        if errors.wire(error).http >= 499:
            tracing.fail(tracing.current(), error)
        return reply(error)

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = error.errors()[:_SHOWN_PROBLEMS]
        if any(problem["loc"] == ("body",) for problem in problems) and not _is_json(request):
            given = request.headers.get("content-type", "")
            sentence = f"The content type is {shortened(given)}; send application/json."
            return reply(InvalidInput(sentence), status=415)
        return reply(InvalidInput(" ".join(map(_sentence, problems))))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        sentence = f"{error.detail[:_SENTENCE_CHARS].removesuffix('.')}."
        known = {
            404: NotFound("There is no such route."),
            405: InvalidInput(
                f"{request.method[:_SHOWN_CHARS]} is not allowed here; "
                f"the route takes {headers.get('Allow', 'other methods')}."
            ),
            408: DeadlineExceeded(sentence),
            413: PayloadTooLarge(sentence),
            499: Cancelled(sentence),
        }
        mapped = known.get(error.status_code, InvalidInput(sentence))
        return reply(mapped, status=error.status_code, headers=headers)

    app.add_exception_handler(RaglanError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _sentence(problem: Any) -> str:
    if problem["type"] == "json_invalid":
        return (
            f"The body is not JSON: {problem['ctx']['error']}, at character {problem['loc'][-1]}."
        )
    where = ".".join(str(part) for part in problem["loc"][1:])[:_SHOWN_CHARS] or "the body"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r:.{_SHOWN_CHARS}})" if isinstance(given, str | int | float) else ""
    return f"{where}: {message}{shown}."
