"""Tokens of a text where the model's tokenizer is not at hand."""

from __future__ import annotations

import re
from typing import Final

_PIECE: Final = re.compile(
    r"""
    (?P<ascii>[a-zA-Z]+(?![\u00c0-\u024f]))      # a word of English
  | (?P<latin>[a-zA-Z\u00c0-\u024f]+)            # a word with accents
  | (?P<rare>[\U00010000-\U0010ffff])            # emoji
  | (?P<single>\S|\n)                            # a digit, a mark, a letter of another script
    """,
    re.VERBOSE,
)
_ASCII_TOKEN: Final = re.compile(r"[a-zA-Z]{1,4}|\S|\n")
"""Equivalent of `_PIECE` for a text of ASCII alone."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text for a language model.

    Four letters of an English word a token, two of a word with accents, one of any other script,
    and each digit and mark one.
    """
    if text.isascii():
        return len(_ASCII_TOKEN.findall(text))
    tokens = 0
    for match in _PIECE.finditer(text):
        length = match.end() - match.start()
        if match.lastgroup == "ascii":
            tokens += -(-length // 4)
        elif match.lastgroup == "latin":
            tokens += -(-length // 2)
        else:
            tokens += 3 if match.lastgroup == "rare" else 1
    return tokens
