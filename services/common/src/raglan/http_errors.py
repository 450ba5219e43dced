"""Every status that a model server answers with, as one of our errors: the one table for it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from raglan.errors import (
    Internal,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)

DEFAULT_RETRY_S: Final = 1.0
"""Retry delay where an overloaded server names none."""

_MAX_DETAIL_CHARS: Final = 300
_MAX_RETRY_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """The server's name in messages and the settings that configure it."""

    name: str
    """Begins a sentence: "The embedding server"."""

    variables: str
    """Prefix of its settings: "RAGLAN_EMBEDDER"."""

    choices: tuple[str, ...] = ("MODEL", "BASE_URL", "API")
    """Its settings that select server and model."""


def from_response(
    called: RemoteServer, status: int, body: Any, headers: Mapping[str, str], *, secret: str = ""
) -> RaglanError:
    """The error that a status and its JSON body (None if it is no JSON) stand for.

    Only the server's words on a refused request are passed on, without `secret`.
    """
    name, variables = called.name, called.variables
    retry_s = retry_after(headers)
    match status:
        case 401 | 403:
            return Internal(f"{name} refused the key ({variables}_API_KEY).")
        case 404 | 405:
            settings = ", ".join(f"{variables}_{choice}" for choice in called.choices)
            return Internal(f"{name} has no such model or path ({settings}).")
        case 413:
            return PayloadTooLarge(f"{name} was sent too much: {detail(body, secret)}")
        case 400 | 422:
            return InvalidInput(f"{name} refused the request: {detail(body, secret)}")
        case 429:
            return Overloaded(
                f"{name} is overloaded.",
                retry_after_s=DEFAULT_RETRY_S if retry_s is None else retry_s,
            )
        # 424 is how text-embeddings-inference reports a failure of its backend.
        case _ if status >= 500 or status in (408, 424):
            return Unavailable(f"{name} failed ({status}).", retry_after_s=retry_s)
        case _:
            return Internal(f"{name} answered {status}; is {variables}_BASE_URL its address?")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, given as a number or as a date; at most an hour."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), _MAX_RETRY_S) if seconds == seconds else None


def detail(said: Any, secret: str = "") -> str:
    """Return a server's own error text, without `secret`, in at most a few hundred characters.

    Args:
        said: its JSON: {"error": {"message": ...}}, {"error": ...}, {"detail": ...}, a list of such
            as pydantic writes it; or its text. Of what a list quotes, only messages are taken.
        secret: removed from the text.
    """
    text = _message_in(said, depth=4)
    if not text:
        return "no reason given."
    shown = text.replace(secret, "***") if secret else text
    return " ".join(shown.split())[:_MAX_DETAIL_CHARS]


def _message_in(said: Any, depth: int) -> str:
    if isinstance(said, str):
        return "" if said.lstrip().startswith("<") else said
    if not depth:
        return ""
    if isinstance(said, list):
        return "; ".join(filter(None, (_message_in(each, depth - 1) for each in said[:8])))
    if isinstance(said, dict):
        for key in ("error", "message", "detail", "msg"):
            if text := _message_in(said.get(key), depth - 1):
                place = said.get("loc")
                return f"{'.'.join(map(str, place))}: {text}" if isinstance(place, list) else text
    return ""
