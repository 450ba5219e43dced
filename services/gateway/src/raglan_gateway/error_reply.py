"""Every error of the gateway as a response: its body, and when to come back."""

from __future__ import annotations

import math
from typing import Final

from fastapi.responses import JSONResponse
from raglan import errors
from raglan.errors import DeadlineExceeded, InvalidInput, RaglanError, Unauthenticated
from raglan.telemetry import context as request_context

from raglan_gateway import error_envelopes


class MalformedRequest(InvalidInput):
    """The request is not valid HTTP."""


class HeadTooLarge(InvalidInput):
    """The request line and the headers are larger than the limit."""


class RequestTimeout(DeadlineExceeded):
    """The client sends its request too slowly."""


_STATUS: Final = {MalformedRequest: 400, HeadTooLarge: 431, RequestTimeout: 408}
"""Statuses of errors that only HTTP has. What follows on their connection cannot be relied on."""


def reply(
    error: RaglanError,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    request_id: str | None = None,
    path: str = "",
    param: str | None = None,
) -> JSONResponse:
    """`error` as a response; `Retry-After` in whole seconds where trying again makes sense.

    Args:
        error: mapped by `raglan.errors`.
        status: by default that of the error.
        headers: added to the reply.
        request_id: by default that of the request being served.
        path: of the request, from which the form of the body follows.
        param: path of the field at fault, where `error` does not tell.
    """
    row = errors.wire(error)
    headers = dict(headers or {})
    if row.http in (429, 503):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if type(error) in _STATUS:
        status = status or _STATUS[type(error)]
        headers["Connection"] = "close"
    status = status or row.http
    if status == 422 and error_envelopes.is_foreign(path):
        status = 400  # the only one that these APIs have for it
    body = error_envelopes.body(
        error,
        path=path,
        status=status,
        request_id=request_id or request_context.request_id(),
        param=param,
    )
    return JSONResponse(body, status_code=status, headers=headers)
