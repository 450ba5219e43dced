"""Characters as an analysis of text sees them: normal forms, accents, scripts."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3005\u3040-\u30ff\u31f0-\u31ff"  # Japanese syllables
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\uac00-\ud7af"  # Korean syllables: words stand apart, but particles stick to them
)
"""Scripts whose words are not found by spaces, as ranges of a regular expression's class."""


_PLANES: Final = range(0x80, 0x20000)
"""Beyond them there are only Chinese characters."""


def _word_characters() -> str:
    r"""Letters, digits and combining marks outside `UNSPACED`, as ranges of a class.

    Python's \w lacks the marks, which are vowels in Hindi, Tamil or Hebrew; one class is also
    twice as fast as an alternation of two.
    """
    unspaced = re.compile(f"[{UNSPACED}]")
    ranges: list[list[int]] = []
    for point in _PLANES:
        character = chr(point)
        is_word = character.isalnum() or unicodedata.category(character) in {"Mn", "Mc"}
        if not is_word or unspaced.match(character):
            continue
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "A-Za-z0-9" + "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)


WORD: Final = _word_characters()
"""Characters of words in scripts that put spaces between them, as ranges of a class."""

_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
)
_POINTING: Final = (
    "\u0640\u064b-\u065f\u0670\u06d6-\u06dc"  # Arabic: tatweel, short vowels
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew: vowel points
)
_REMOVED: Final = re.compile(f"[{_INVISIBLE}{_POINTING}]")

_REPLACED: Final = {
    # Apostrophes and dashes
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u02b9\u02bb\u2032\uff07\u05f3"), "'"),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-"),
    0x451: "\u0435",  # Russian prints this letter without its dots
    0x401: "\u0415",
    # Digits of other scripts
    **{
        point: str(unicodedata.decimal(chr(point)))
        for point in _PLANES
        if unicodedata.category(chr(point)) == "Nd"
    },
}

_ACCENT: Final = re.compile("(?<=[A-Za-z\u0370-\u03ff\u1f00-\u1fff])[\u0300-\u036f]+")
_PLAIN: Final = str.maketrans(
    {
        "\u00f8": "o", "\u00e6": "ae", "\u0153": "oe", "\u0142": "l", "\u0111": "d",
        "\u00f0": "d", "\u00fe": "th", "\u0131": "i", "\u00df": "ss", "\u0127": "h",
    }
)  # fmt: skip
"""Latin letters that have no decomposition."""


def normalise(text: str) -> str:
    """`text` in NFKC, without invisible characters, with plain digits, dashes and apostrophes.

    Soft hyphens, zero-width characters and the vowel points of Arabic and Hebrew are removed.
    Case and accents stay.
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFKC", _REMOVED.sub("", text))
    return composed.translate(_REPLACED)


@lru_cache(maxsize=50_000)
def fold_accents(word: str) -> str:
    """Lower-case `word` without the accents of Latin and Greek letters.

    Marks of other scripts stay: they make another letter or vowel.
    """
    if word.isascii():
        return word
    plain = word.translate(_PLAIN)
    split = unicodedata.normalize("NFD", plain)
    bare = _ACCENT.sub("", split)
    return plain if bare == split else unicodedata.normalize("NFC", bare)
