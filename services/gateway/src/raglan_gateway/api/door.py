"""What queries pass before they are read: refusing must cost little, or it becomes the load."""

from __future__ import annotations

from typing import Final

import structlog
from fastapi.responses import Response
from raglan.errors import Overloaded
from raglan.resilience.limiter import AdaptiveLimiter, Priority
from raglan.telemetry import context as request_context
from starlette.types import Scope

from raglan_gateway.api.problem import reply
from raglan_gateway.metrics import Metrics

log: Final = structlog.get_logger()
QUERIES: Final = ("/v1/query", "/v1/search")


class Door:
    """Narrow when the gateway itself is late; see `Pipeline.door`."""

    def __init__(self, limiter: AdaptiveLimiter, metrics: Metrics) -> None:
        self._limiter = limiter
        self._metrics = metrics

    def refusal(self, scope: Scope) -> Response | None:
        """The reply to a query that would find the queue full, counted and logged; else None."""
        if scope["path"] not in QUERIES:
            return None
        headers = dict(scope["headers"])
        named = headers.get(b"x-raglan-priority", b"").decode("latin-1").upper()
        try:
            self._limiter.check(Priority.__members__.get(named, Priority.DEFAULT))
        except Overloaded as error:
            self._metrics.failed(error)
            id_ = request_context.id_from(headers.get(b"x-request-id", b"").decode("latin-1"))
            response = reply(error, request_id=id_)
            response.headers["X-Request-ID"] = id_
            self._record(scope, id_, response.status_code)
            return response
        return None

    def _record(self, scope: Scope, id_: str, status: int) -> None:
        method, route = scope["method"], scope["path"]
        self._metrics.served(method, route, status, 0.0)
        log.info(
            "request", request_id=id_, method=method, route=route, status=status, elapsed_ms=0.0
        )
