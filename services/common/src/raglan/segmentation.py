"""Terms of text in scripts whose words are not found by spaces: pairs of neighbouring characters.

Pairs need no dictionary and find every word inside every compound. On Thai they are better than
the word breakers of ICU and Qdrant (docs/decisions/retrieval.md). What counts as a character is
what a reader sees as one: a consonant with its vowels, tones and subscripts.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Final

_SOUTH_EAST: Final = (range(0xE00, 0xF00), range(0x1000, 0x10A0), range(0x1780, 0x1800))
"""Thai and Lao, Burmese, Khmer."""

_SIGNS: Final = "".join(
    chr(point)
    for block in _SOUTH_EAST
    for point in block
    if unicodedata.category(chr(point)) in {"Mn", "Mc"}
)
_CLUSTER: Final = re.compile(
    "[\u0e40-\u0e44\u0ec0-\u0ec4]?."  # a vowel written before its consonant
    f"(?:[{_SIGNS}]|(?<=[\u1039\u17d2]).)*"  # signs; a consonant below another
    "[\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3]?",  # a vowel written after it
    re.DOTALL,
)
_KOREAN: Final = re.compile("[\uac00-\ud7af]+")
_KANA: Final = re.compile("[\u3040-\u30ff]")
_PARTICLES: Final = frozenset("은는이가을를에의도만와과로")
"""Korean particles of one syllable."""


def segments(run: str) -> list[str]:
    """Split a run of such a script into terms.

    Args:
        run: Characters of `characters.UNSPACED` only.

    Returns:
        Each character with its neighbour, in order, and each character alone that may be a word: a
        Chinese one, a syllable of Thai, Lao, Khmer or Burmese, a Korean one before a particle.
    """
    found: list[str] = []
    for script, part in _by_script(run):
        if script == "korean":
            found += _korean(part)
            continue
        clusters = _CLUSTER.findall(part)
        alone = clusters if len(clusters) == 1 else [c for c in clusters if not _KANA.match(c)]
        found += [first + second for first, second in pairwise(clusters)]
        found += alone
    return found


def _by_script(run: str) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    end = 0
    for match in _KOREAN.finditer(run):
        if match.start() > end:
            parts.append(("other", run[end : match.start()]))
        parts.append(("korean", match.group()))
        end = match.end()
    if end < len(run):
        parts.append(("other", run[end:]))
    return parts


def _korean(word: str) -> list[str]:
    if len(word) == 1:
        return [word]
    pairs = [word[i : i + 2] for i in range(len(word) - 1)]
    return [word[0], *pairs] if len(word) == 2 and word[1] in _PARTICLES else pairs
