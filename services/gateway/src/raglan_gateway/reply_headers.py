"""Headers that a request's reply gets besides those of its route, whatever its status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.types import Scope

_KEY: Final = "raglan.headers"


def add(scope: Scope, name: str, value: str) -> None:
    """Add a header to the reply to the request of `scope`; `name` is in lower case."""
    scope.setdefault(_KEY, []).append((name.encode(), value.encode()))


def added(scope: Scope) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers added so far."""
    headers: Sequence[tuple[bytes, bytes]] = scope.get(_KEY, ())
    return headers
