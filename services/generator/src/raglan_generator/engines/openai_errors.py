"""Every way an OpenAI-compatible server fails, as one of our errors. The one table for it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
from raglan.errors import (
    Internal,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)

_MAX_DETAIL_CHARS: Final = 300
_DEFAULT_RETRY_S: Final = 1.0


def from_response(
    status: int, body: Any, headers: Mapping[str, str], *, model: str, secret: str = ""
) -> RaglanError:
    """The error that a status and its JSON body (None if it is no JSON) stand for.

    Only the server's words on a refused request are passed on, without `secret`.
    """
    match status:
        case 401 | 403:
            return Internal("The LLM server refused the key (RAGLAN_GENERATOR_API_KEY).")
        case 404:
            return Internal(
                f"The LLM server has no model {model!r}, or is elsewhere "
                "(RAGLAN_GENERATOR_MODEL, RAGLAN_GENERATOR_BASE_URL)."
            )
        case 413:
            return PayloadTooLarge("The passages are too long for the LLM server; send fewer.")
        case 400 | 422:
            return InvalidInput(f"The LLM server refused the request: {_detail(body, secret)}")
        case 429:
            return Overloaded("The LLM server is overloaded.", retry_after_s=_retry_after(headers))
        case _ if status >= 500 or status == 408:
            retry_s = _retry_after(headers) if "retry-after" in headers else None
            return Unavailable(f"The LLM server failed ({status}).", retry_after_s=retry_s)
        case _:
            return Internal(
                f"The LLM server answered {status}; is RAGLAN_GENERATOR_BASE_URL its /v1 address?"
            )


def from_frame(error: Any, *, model: str, secret: str = "") -> RaglanError:
    """The error that an error object inside the stream stands for."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int | str) and str(code).isdigit() and 400 <= int(code) <= 599:
        return from_response(int(code), {"error": error}, {}, model=model, secret=secret)
    return Unavailable("The LLM server failed while it was answering.")


def from_transport(error: httpx.HTTPError | httpx.InvalidURL, *, begun: bool) -> RaglanError:
    """The error that a failed connection stands for; `begun` once the answer had."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Internal("RAGLAN_GENERATOR_BASE_URL is no http or https address.")
    if isinstance(error, httpx.PoolTimeout):
        return Overloaded(
            "All connections to the LLM server are busy.", retry_after_s=_DEFAULT_RETRY_S
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unavailable("The LLM server cannot be reached (RAGLAN_GENERATOR_BASE_URL).")
    if begun:
        return Unavailable("The LLM server closed the stream before the end of the answer.")
    return Unavailable("The LLM server closed the connection without an answer.")


def _detail(body: Any, secret: str) -> str:
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str) or not message:
        return "no reason given."
    if secret:
        message = message.replace(secret, "***")
    return message[:_MAX_DETAIL_CHARS]


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from a Retry-After header, given as a number or as a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return _DEFAULT_RETRY_S
