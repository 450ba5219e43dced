"""The border of every request: identity, a bound on how many run, one error shape, one log line."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from raglan.errors import (
    Internal,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)
from raglan.telemetry import context as request_context
from raglan.telemetry.metrics import OTHER
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway.api.door import QUERIES
from raglan_gateway.api.problem import reply
from raglan_gateway.metrics import Metrics
from raglan_gateway.shared.rate_limit import RateLimit, caller_of

log: Final = structlog.get_logger()
_QUIET: Final = ("/healthz", "/readyz", "/metrics")
_SHOWN_CHARS: Final = 100


class Boundary:
    """ASGI middleware around the routes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_concurrent: int,
        rate_limit: RateLimit,
    ) -> None:
        self.app = app
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
        with request_context.incoming(carrier) as request_id:
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        self._running += 1
        try:
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
            self._record(scope, status, time.monotonic() - started)

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

    def _record(self, scope: Scope, status: int, elapsed_s: float) -> None:
        # A client that left before the reply began has no status; 499 is the custom for it.
        route = getattr(scope.get("route"), "path", OTHER)
        self._metrics.served(scope["method"], route, status or 499, elapsed_s)
        level = log.debug if scope["path"] in _QUIET else log.info
        level(
            "request",
            method=scope["method"],
            route=route,
            status=status or 499,
            elapsed_ms=round(elapsed_s * 1e3, 1),
        )


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` leave in the envelope."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RaglanError)
        return reply(error)

    async def validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return reply(InvalidInput(" ".join(_sentence(problem) for problem in error.errors()[:5])))

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        sentence = f"{error.detail}."
        known = {404: NotFound("There is no such route."), 413: PayloadTooLarge(sentence)}
        mapped = known.get(error.status_code, InvalidInput(sentence))
        return reply(mapped, status=error.status_code, headers=dict(error.headers or {}))

    app.add_exception_handler(RaglanError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r:.{_SHOWN_CHARS}})" if isinstance(given, str | int | float) else ""
    return f"{where}: {message}{shown}."
