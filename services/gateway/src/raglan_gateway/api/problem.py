"""Every error of the gateway as a response: the envelope, and when to come back."""

from __future__ import annotations

import math

from fastapi.responses import JSONResponse
from raglan import errors
from raglan.errors import RaglanError
from raglan.telemetry import context as request_context


def reply(
    error: RaglanError,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    request_id: str | None = None,
) -> JSONResponse:
    """`error` as a response; `Retry-After` in whole seconds where trying again makes sense.

    Args:
        request_id: by default that of the request being served.
    """
    row = errors.wire(error)
    headers = dict(headers or {})
    if row.http in (429, 503):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
    body = errors.envelope(error, request_id or request_context.request_id())
    return JSONResponse(body, status_code=status or row.http, headers=headers)
