"""Signs of prompt injection: text of a passage that gives orders to a language model.

The signs are in `injection_signs.toml`, by kind. A text is first searched for the fixed words of
each; most contain none.
"""

from __future__ import annotations

import tomllib
import unicodedata
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, cast, get_args

import regex

InjectionSign = Literal["override", "control", "hidden", "model", "encoded"]
_INVISIBLE: Final = regex.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")


def injection_signs(text: str) -> list[InjectionSign]:
    """Return the kinds of sign that `text` has, in the order of `InjectionSign`.

    Compatible characters count as the same, and invisible ones do not hide a sign.
    """
    raw = text.lower()
    plain = raw if raw.isascii() else _plain(raw)
    found = {
        kind
        for kind, words, pattern in _signs()
        if any(word in (shown := raw if kind == "hidden" else plain) for word in words)
        and pattern.search(shown)
    }
    return [kind for kind in get_args(InjectionSign) if kind in found]


def _plain(text: str) -> str:
    shown: str = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return shown


@cache
def _signs() -> tuple[tuple[InjectionSign, list[str], regex.Pattern[str]], ...]:
    """Kind, words in lower case of which one must be in the text, and pattern."""
    source = resources.files("raglan_gateway").joinpath("injection_signs.toml").read_text("utf-8")
    kinds: dict[str, list[dict[str, Any]]] = tomllib.loads(source)
    return tuple(
        (cast("InjectionSign", kind), sign["words"], regex.compile(sign["pattern"]))
        for kind, signs in kinds.items()
        for sign in signs
    )
