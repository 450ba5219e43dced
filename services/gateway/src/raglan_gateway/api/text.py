"""Text that every store and every wire format behind the API can hold."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HALF: Final = "it contains half of a surrogate pair, which is not text"
_MAX_DEPTH: Final = 64
_MAX_PARTS: Final = 10_000


def _plain(value: str) -> str:
    if "\0" in value:
        raise ValueError("it contains a null character")
    if _SURROGATE.search(value):
        raise ValueError(_HALF)
    return value


def check_encodable(value: Any) -> None:
    """Check that a JSON value can be sent on as UTF-8, at the price of writing it once.

    Raises:
        ValueError: it cannot.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(_HALF) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    parts = 0
    for _ in range(_MAX_DEPTH):
        parts += len(level)
        if parts > _MAX_PARTS:
            raise ValueError(f"it holds more than {_MAX_PARTS} values, the limit")
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            check_encodable(value)
            return value
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep, the limit")


def _inner(value: Any) -> Any:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value


PlainText = Annotated[str, AfterValidator(_plain)]
"""Any Unicode text without null characters and lone surrogates."""

NonBlankText = Annotated[PlainText, AfterValidator(_not_blank)]
"""Plain text with something to read in it."""

BoundedJson = Annotated[dict[str, Any], AfterValidator(_bounded)]
"""A JSON object that every writer of JSON can write, whatever its limit of recursion."""
