"""Text as the terms that carry its meaning: stemmed words without the stop words."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import Stemmer

STOP_WORDS: Final = frozenset(
    # One string, because a list of 150 literals hides what it says.
    str.split(
        """a about above after again against all also am an and any are as at be because been
        before being below between both but by can cannot could did do does doing down during each
        few for from further had has have having he her here hers herself him himself his how i if
        in into is it its itself just me more most my myself no nor not now of off on once only or
        other our ours ourselves out over own same shall she should so some such than that the
        their theirs them themselves then there these they this those through to too under until
        up upon us very was we were what when where which while who whom whose why will with would
        you your yours yourself yourselves s t d ll m re ve don didn doesn isn wasn weren"""
    )
)
"""English function words, after the Snowball project's list (BSD)."""

# Scripts written without spaces: a word is a pair of neighbouring characters.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(
    rf"[{_UNSPACED}]+|\d+(?:[.,:]\d+)*|(?:[^\W_]|[\u0300-\u036f\u0900-\u0dff])+"
)
_ACCENT: Final = re.compile("[\u0300-\u036f]")
_IS_UNSPACED: Final = re.compile(rf"[{_UNSPACED}]")
_local = threading.local()


def words(text: str) -> list[str]:
    """The words of `text`, casefolded, without accents, in order, stop words included."""
    found: list[str] = []
    for word in _WORD.findall(_folded(text)):
        if _IS_UNSPACED.match(word) and len(word) > 1:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


def terms(text: str) -> list[str]:
    """The stemmed words of `text` that are no stop words, in order."""
    kept = [word for word in words(text) if word not in STOP_WORDS]
    stemmed: list[str] = _stemmer().stemWords(kept)
    return stemmed


@lru_cache(maxsize=50_000)
def grams(term: str) -> frozenset[str]:
    """The four-letter pieces of `term`, its beginning marked; at least one."""
    marked = f"^{term}"
    return frozenset(marked[i : i + 4] for i in range(max(1, len(marked) - 3)))


def grams_of(held: Iterable[str]) -> frozenset[str]:
    """The pieces of several terms together."""
    return frozenset().union(*map(grams, held))


def _folded(text: str) -> str:
    """`text` casefolded and without accents: a question seldom has those of the document."""
    if text.isascii():
        return text.lower()
    bare = _ACCENT.sub("", unicodedata.normalize("NFD", text.casefold()))
    return unicodedata.normalize("NFC", bare)


def _stemmer() -> Stemmer.Stemmer:
    # A stemmer must not be shared between threads.
    if not hasattr(_local, "stemmer"):
        _local.stemmer = Stemmer.Stemmer("english")
    stemmer: Stemmer.Stemmer = _local.stemmer
    return stemmer
