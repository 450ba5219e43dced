"""The definition of a supported sentence: one that its cited passages confirm.

By words or by meaning, unless a number, a name or a negation of it contradicts what it cites. The
generator compares words and finds conflicts, which need the passages; the gateway, which knows the
embedder, compares meaning. Both thresholds were chosen on SciFact's claims; `make bench-claims`
prints what they let pass.
"""

from __future__ import annotations

import re
from typing import Final

from raglan.support_words import INTERJECTIONS

SUPPORTED_SHARE: Final = 0.5
"""Share of its terms that the passages it cites hold."""

SUPPORTED_COSINE: Final = 0.65
"""Cosine of its vector and a quote's, as all-MiniLM-L6-v2 has them."""

_HEADING: Final = re.compile(r"#{1,6}\s|(\*\*|__)(?:(?!\1).)+\1:?\s*\Z|\|?[\s:|-]+\Z")
_WORD: Final = re.compile(r"[^\W\d_]+")


def is_supported(lexical: float, cosine: float | None = None, conflict: str = "") -> bool:
    """Decide whether what a sentence cites supports it.

    Args:
        lexical: in [0, 1], the share of its terms that the passages it cites hold.
        cosine: in [-1, 1], of its vector and the nearest quote's; None where not compared.
        conflict: what of it the passages contradict, by `raglan.conflicts.find_conflict`.
    """
    if conflict:
        return False
    return lexical >= SUPPORTED_SHARE or (cosine or 0.0) >= SUPPORTED_COSINE


def is_lead_in(sentence: str) -> bool:
    """Return whether `sentence`, without citation markers, only announces what follows."""
    return sentence.rstrip(" *_").endswith((":", "\uff1a"))


def makes_claim(sentence: str) -> bool:
    """Return whether `sentence` states something that can be supported.

    Headings, the rule of a table, lead-ins of lists, and a mere yes or no do not.

    Args:
        sentence: without citation markers.
    """
    text = sentence.strip()
    if not any(character.isalnum() for character in text):
        return False
    if _HEADING.match(text) or is_lead_in(text):
        return False
    words = _WORD.findall(text.casefold())
    return not words or not INTERJECTIONS.issuperset(words)
