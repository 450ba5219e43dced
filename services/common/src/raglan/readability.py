"""Readability of a text for a model, and the weight of the model's scores that follows from it.

A model knows the words that its vocabulary was made from. It meets other languages as unknown
tokens, single letters or bytes, or as fragments of words that mean nothing to it; its vectors then
tell texts apart poorly, and a ranking by them does harm. `raglan.encoders.readability` measures
that by the model's tokenizer; this module says what follows from it, and needs no tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

UNREADABLE: Final = 0.55
"""At and below this readability the model's scores of a text are worth nothing."""

READABLE: Final = 0.8
"""From this readability on they are worth what they are worth in English."""

PRIOR_WORDS: Final = 8
"""A collection's mean readability counts as much as so many words of a query."""

LETTERS_A_WORD: Final = 5
"""Letters a word in scripts without spaces."""

HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SYLLABLES: Final = "\u1100-\u11ff\u3040-\u30ff\u31f0-\u31ff\uac00-\ud7af\uff66-\uff9f"
_SEPARATORS: Final = (
    r"\s\d_!-/:-@\[-`{-~\x80-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7"
    "\u2000-\u206f\u2190-\u2bff\u3000-\u3004\u3008-\u303f\uff00-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\ufe00-\ufe4f\U0001f000-\U0001faff"
)
WORD: Final = re.compile(
    f"(?P<han>[{HAN}]+)|(?P<syllables>[{SYLLABLES}]+)|[^{_SEPARATORS}{HAN}{SYLLABLES}]+"
)
"""A run of letters of one kind. Letters are what separates no words, so that combining marks, which
Python does not count as word characters, stay within their words."""


@dataclass(frozen=True, slots=True)
class Readability:
    """Readability of one text for a model."""

    value: float
    """Share of the letters in words that the vocabulary represents, in [0, 1]."""

    words: float
    """Number of words it was measured on; in scripts without spaces, letters / 5."""


NO_WORDS: Final = Readability(1.0, 0.0)
"""Of a text without letters: nothing in it is unreadable."""


def count_words(text: str) -> float:
    """Words of `text`; in scripts without spaces, letters / 5."""
    return sum(
        len(word[0]) / LETTERS_A_WORD if word.lastgroup else 1.0 for word in WORD.finditer(text)
    )


def query_credit(query: Readability, mean: float | None) -> float:
    """Return the weight of the model's scores for a query over texts of mean readability `mean`.

    A few words say little: rare names and terms are cut into pieces in any language. So the query
    is judged together with the texts, by its number of words.

    Args:
        query: How well the model reads the query.
        mean: The mean readability of the texts; None where it is not known.

    Returns:
        0 to 1.
    """
    prior = 0.0 if mean is None else PRIOR_WORDS
    words = query.words + prior
    if not words:
        return 1.0
    return credit((query.value * query.words + prior * (mean or 0.0)) / words)


def credit_between(query: Readability, texts: Sequence[Readability]) -> float:
    """Compute `query_credit` for texts, each weighted by its number of words."""
    words = sum(each.words for each in texts)
    mean = sum(each.value * each.words for each in texts) / words if words else None
    return query_credit(query, mean)


def credit(readability: float) -> float:
    """Return the weight, 0 to 1, of the model's scores at this readability."""
    return min(1.0, max(0.0, (readability - UNREADABLE) / (READABLE - UNREADABLE)))
