"""Text that every store and every wire format behind the API can hold."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _plain(value: str) -> str:
    if "\0" in value:
        raise ValueError("it contains a null character")
    if _SURROGATE.search(value):
        raise ValueError("it contains half of a surrogate pair, which is not text")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value


PlainText = Annotated[str, AfterValidator(_plain)]
"""Any Unicode text without null characters and lone surrogates."""

NonBlankText = Annotated[PlainText, AfterValidator(_not_blank)]
"""Plain text with something to read in it."""
