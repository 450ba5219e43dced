"""Cross-origin requests of web pages, with refusals in the error envelope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from raglan.errors import Forbidden
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from raglan_gateway.error_reply import reply

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_REQUEST_HEADERS: Final = (
    *("authorization", "x-api-key", "x-request-id", "x-raglan-priority"),
    *("traceparent", "tracestate"),
)
_REPLY_HEADERS: Final = ("X-Request-ID", "traceparent", "Retry-After", "WWW-Authenticate")


class Cors(CORSMiddleware):
    """Starlette's, with refusals in the envelope."""

    def __init__(self, app: object, origins: Iterable[str]) -> None:
        super().__init__(
            app,  # type: ignore[arg-type]
            allow_origins=tuple(origins),
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_REPLY_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks before it sends."""
        response = super().preflight_response(request_headers)
        if response.status_code != 400:
            return response
        refusal = reply(
            Forbidden(f"{bytes(response.body).decode()[:100]} (RAGLAN_GATEWAY_CORS_ORIGINS).")
        )
        refusal.headers["Vary"] = response.headers["Vary"]
        return refusal
