"""Modality and tense of English questions, by their function words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from raglan_gateway.caches.contrasts import by_word

MODALITIES: Final[Mapping[str, str]] = dict(
    by_word(
        "must have_to has_to had_to need_to needs_to required_to obliged_to; "
        "should ought supposed_to; might; would; "
        "can may could able_to allowed_to permitted_to possible_to; "
        "do_i do_we do_you do_one how_to"
    )
)
"""Words, or two words in a row, that say whether something must, should or may be."""

_STRONGEST_FIRST: Final = tuple(dict.fromkeys(MODALITIES.values()))
"""Of "do I have to", `must` counts."""

AGREEING: Final = frozenset(frozenset({"do_i", other}) for other in ("can", "should", ""))
"""Modalities that ask the same of a procedure: how do I, how can I."""

_TENSES: Final[Mapping[str, str]] = dict(
    by_word(
        "past was were did had used_to; future will shall wo going_to; present is are am do does"
    )
)
_PERFECT: Final = frozenset({"has", "have"})
_PARTICIPLE_WITHIN: Final = 4
"""Words after `has` among which its participle is."""

_POLITE: Final = frozenset({"can", "could", "would", "will"})
_ASKS: Final = frozenset({"tell", "explain", "show", "describe", "give", "say", "help", "list"})


def modality(words: Sequence[str]) -> str:
    """Return the modality of a question; empty where it has none.

    Args:
        words: of the question, casefolded.
    """
    found = {MODALITIES[term] for term in _terms(_asking(words)) if term in MODALITIES}
    return next((each for each in _STRONGEST_FIRST if each in found), "")


def tense(words: Sequence[str]) -> str:
    """Return `past`, `present` or `future`; the perfect counts as past.

    Args:
        words: of the question, casefolded.
    """
    words = _asking(words)
    found = {_TENSES[term] for term in _terms(words) if term in _TENSES}
    if any(_is_perfect(words, at) for at in range(len(words))):
        found.add("past")
    for first in ("future", "past", "present"):
        if first in found:
            return first
    # Without an auxiliary the verb itself has the ending.
    has_past_form = any(word.endswith("ed") for word in words)
    return "past" if has_past_form and not modality(words) else "present"


def _is_perfect(words: Sequence[str], at: int) -> bool:
    following = words[at + 1 : at + 1 + _PARTICIPLE_WITHIN]
    return words[at] in _PERFECT and any(
        word == "been" or word.endswith("ed") for word in following
    )


def _terms(words: Sequence[str]) -> set[str]:
    """Return the words, and each two in a row."""
    return {*words, *map("_".join, pairwise(words))}


def _asking(words: Sequence[str]) -> Sequence[str]:
    """Leave out what a polite question begins with: could you tell me."""
    is_polite = len(words) > 1 and words[0] in _POLITE and words[1] == "you"
    return words[2:] if is_polite and _ASKS & set(words[:5]) else words
