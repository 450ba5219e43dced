"""The id under which the answer to the current request is returned and kept.

It is the id of the request where the gateway made that. One that a client gave is no key: clients
repeat theirs, for a retry or for all of a conversation.
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from typing import Final

_current: Final[ContextVar[str]] = ContextVar("raglan_answer_id", default="")


def begin(request_id: str, given: str) -> None:
    """Choose the id for this request, for this task and those it starts.

    Args:
        request_id: of the request.
        given: the one that the client sent; empty for none.
    """
    _current.set(secrets.token_hex(8) if request_id == given else request_id)


def current() -> str:
    """Return the id of the answer to the request being served, or "" outside of one."""
    return _current.get()
