"""Failures of an OpenAI-compatible server, mapped to our errors.

There is one upstream for all generators, so none of its failures is worth asking another replica.
What the server itself said goes into the log and the trace, never to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import aiohttp
from raglan import http_errors
from raglan.errors import Internal, InvalidInput, RaglanError, Unavailable
from raglan.http_errors import RemoteServer

from raglan_generator.language_model import ContextOverflow

LLM_SERVER: Final = RemoteServer("The LLM server", "RAGLAN_GENERATOR", ("MODEL", "BASE_URL"))

_OVERFLOW: Final = re.compile(
    r"context[_ ]length|maximum context|context[_ ]window|context size|exceed_context_size"
    r"|maximum (?:prompt|model) length|too many (?:input )?tokens|prompt (?:is )?too long"
    r"|input (?:is )?too long|(?:input|prompt) length|reduce the length"
    r"|`inputs` tokens \+ `max_new_tokens`|`inputs` must have less than|max_model_len",
    re.IGNORECASE,
)
"""Error texts of vLLM, OpenAI, llama.cpp, TGI, SGLang and Ollama for a prompt that is too long."""

_LIMIT: Final = re.compile(
    r"(?:(?:context|model|prompt)[ _](?:length|size|window)(?: of the model)?(?: is)?(?: only)?"
    r"|`max_new_tokens` must be <=|n_ctx\"?|max_model_len\w*|less than)\D{0,12}(\d{2,8})"
    r"|> (\d{2,8}) maximum",
    re.IGNORECASE,
)
"""The length that the server names."""
_GIVEN: Final = re.compile(
    r"n_prompt_tokens\D{1,4}(\d{2,8})|\((\d{2,8}) (?:tokens )?in the messages"
    r"|(?<!at least )(?<!\d)(\d{2,8}) (?:`inputs` tokens|(?:input|prompt) tokens)"
    r"|prompt contains (\d{2,8})|resulted in (\d{2,8})|request \((\d{2,8}) tokens"
    r"|too long: (\d{2,8})",
    re.IGNORECASE,
)
"""The length of the prompt that it was sent; "at least" so many, as vLLM may say, is none."""
_UNSUPPORTED: Final = re.compile(
    r"support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed|only the default"
    r"|does not exist|deprecated|invalid (?:field|parameter|argument)",
    re.IGNORECASE,
)
"""The parameter itself is refused, not its value."""

_SCHEMA: Final = re.compile(r"response_format|schema|grammar|guided", re.IGNORECASE)


class ParameterRefused(Internal):
    """The server refuses a parameter; the request may succeed without it."""

    def __init__(self, name: str, *, always: bool) -> None:
        super().__init__(f"The LLM server refuses the parameter {name}.")
        self.name = name
        self.always = always
        """True if it refuses the parameter itself, not only this value."""


def from_response(
    status: int,
    body: Any,
    headers: Mapping[str, str],
    *,
    parameters: Collection[str] = (),
    has_schema: bool = False,
    secret: str = "",
) -> RaglanError:
    """The error that a status and its body stand for.

    Args:
        status: of the response.
        body: the JSON, the text where it is none, or None.
        headers: of the response.
        parameters: of the request, those that it can do without.
        has_schema: whether the request has a JSON schema, which its caller chose.
        secret: never repeated from what the server says.
    """
    error = http_errors.from_response(LLM_SERVER, status, body, headers, secret=secret)
    said = http_errors.detail(body, secret)
    if isinstance(error, InvalidInput):
        error = _refusal(status, body, said, parameters)
    if has_schema and type(error) is Internal and _SCHEMA.search(said):
        error = InvalidInput(f"The LLM server refuses the json_schema: {said}")
    return with_server_message(error, said, secret=secret)


def from_frame(error: Any, *, secret: str = "") -> RaglanError:
    """The error that an error object inside the stream stands for."""
    code = error.get("code") if isinstance(error, dict) else None
    said = http_errors.detail({"error": error}, secret)
    if isinstance(code, int | str) and str(code).isdigit() and 400 <= int(code) <= 599:
        return from_response(int(code), {"error": error}, {}, secret=secret)
    if _OVERFLOW.search(f"{code} {said}"):
        return with_server_message(_overflow(said), said, secret=secret)
    return with_server_message(
        Unavailable("The LLM server failed while it was answering."), said, secret=secret
    )


def from_transport(error: aiohttp.ClientError, *, begun: bool) -> RaglanError:
    """The error that a failed connection stands for; `begun` once the answer had."""
    if isinstance(error, aiohttp.InvalidURL):
        return Internal("RAGLAN_GENERATOR_BASE_URL is no http or https address.")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Unavailable("The LLM server cannot be reached (RAGLAN_GENERATOR_BASE_URL).")
    what = "stream before the end of the answer" if begun else "connection without an answer"
    return Unavailable(f"The LLM server closed the {what}.", is_final=True)


def with_server_message(error: RaglanError, said: str, *, secret: str = "") -> RaglanError:
    """Attach the server's message as the hidden cause of `error`, and forbid a retry elsewhere."""
    error.cause = said.replace(secret, "***") if secret else said
    error.is_final = True
    return error


def _refusal(status: int, body: Any, said: str, parameters: Collection[str]) -> RaglanError:
    """Map a refused request to our error: no part of it is text that the user sent."""
    code = _field(body, "code") or _field(body, "type") or ""
    if status == 413 or _OVERFLOW.search(f"{code} {said}"):
        return _overflow(said)
    if "content_filter" in f"{code}" or "content management policy" in said:
        return Unavailable("The LLM server withheld the answer (content_filter).")
    named = _named(body, said, parameters)
    if named:
        always = bool(_UNSUPPORTED.search(f"{code} {said}"))
        return ParameterRefused(named, always=always)
    return Internal("The LLM server refused the request; its reason is in the log and the trace.")


def _named(body: Any, said: str, parameters: Collection[str]) -> str:
    """The parameter that the server names, among those that a request can do without."""
    param = _field(body, "param")
    if isinstance(param, str) and param.partition(".")[0] in parameters:
        return param.partition(".")[0]
    found = [
        (match.start(), name)
        for name in parameters
        if (match := re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", said))
    ]
    return min(found)[1] if found else ""


def _field(body: Any, name: str) -> Any:
    for _ in range(2):
        if not isinstance(body, dict):
            return None
        if name in body and not isinstance(body[name], dict):
            return body[name]
        body = body.get("error")
    return None


def _overflow(said: str) -> ContextOverflow:
    limit = _LIMIT.search(said)
    given = _GIVEN.search(said)
    return ContextOverflow(
        "The prompt is longer than the LLM server takes; set RAGLAN_GENERATOR_MAX_MODEL_LEN to the "
        "length that it serves.",
        max_model_len=_number(limit),
        prompt_tokens=_number(given),
    )


def _number(match: re.Match[str] | None) -> int | None:
    """The one group that matched."""
    return next((int(group) for group in match.groups() if group), None) if match else None
