"""Secrets that are recognised by their own form, whatever name they stand under.

The formats are those of gitleaks, in `secret_formats.toml`. A text is first searched for the fixed
part of each, in C; most contain none.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Final

import regex

_SHORTEST: Final = 16
"""Characters; every format is longer."""


def replace(value: str, by: str) -> str:
    """`value` with every secret of a known format replaced."""
    if len(value) < _SHORTEST:
        return value
    lowered = value.lower()
    for keyword, pattern in _formats():
        if keyword in lowered:
            value = _compiled(pattern).sub(by, value)
    return value


@cache
def _formats() -> tuple[tuple[str, str], ...]:
    """Part of the secret in lower case, and pattern."""
    source = resources.files("raglan").joinpath("secret_formats.toml").read_text("utf-8")
    formats = tomllib.loads(source).values()
    return tuple((keyword, each["pattern"]) for each in formats for keyword in each["keywords"])


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    # Version 1 reads a flag in the middle as RE2 does, for which the patterns are written.
    return regex.compile(pattern, regex.VERSION1)
