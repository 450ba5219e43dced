"""Context variables that are set for a block."""

from __future__ import annotations

from contextvars import Token
from typing import TypeVar

_T = TypeVar("_T")


def restore(token: Token[_T], value: _T) -> None:
    """Undo `token.var.set(value)` at the end of a block.

    A stream goes on in another task than the one it began in, whose context is a copy: there a
    token is refused, and the value of before is set anew. A context that does not hold `value`,
    as that of a task which closes a stream that its reader has left, stays as it is.
    """
    try:
        token.var.reset(token)
    except ValueError:
        if token.var.get(None) is value and token.old_value is not Token.MISSING:
            token.var.set(token.old_value)
