"""How an OpenAI-compatible server fails inside a stream, as one of our errors."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
from raglan import http_errors
from raglan.errors import Internal, RaglanError, Unavailable
from raglan.http_errors import Called

LLM_SERVER: Final = Called("The LLM server", "RAGLAN_GENERATOR", ("MODEL", "BASE_URL"))


def from_frame(error: Any, *, secret: str = "") -> RaglanError:
    """The error that an error object inside the stream stands for."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int | str) and str(code).isdigit() and 400 <= int(code) <= 599:
        return http_errors.from_response(LLM_SERVER, int(code), {"error": error}, {}, secret=secret)
    return Unavailable("The LLM server failed while it was answering.")


def from_transport(error: aiohttp.ClientError, *, begun: bool) -> RaglanError:
    """The error that a failed connection stands for; `begun` once the answer had."""
    if isinstance(error, aiohttp.InvalidURL):
        return Internal("RAGLAN_GENERATOR_BASE_URL is no http or https address.")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Unavailable("The LLM server cannot be reached (RAGLAN_GENERATOR_BASE_URL).")
    if begun:
        return Unavailable("The LLM server closed the stream before the end of the answer.")
    return Unavailable("The LLM server closed the connection without an answer.")
