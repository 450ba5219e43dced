"""Token counts of the pieces of a text, without tokenising each piece again."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

_WINDOW_CHARS: Final = 65_536
"""Tokenised at a time: a huge text must not become one huge encoding."""


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """The tokenizer of the model that will embed the chunks."""

    path: Path
    """A Hugging Face tokenizer.json."""
    max_tokens: int
    """Tokens of one text that the model reads."""


@lru_cache(maxsize=2)
def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at `path`, without truncation and padding; kept, as it takes 20 ms to load."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class TokenIndex:
    """Token offsets of one text."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self._tokenizer = tokenizer
        self._starts = array("I")
        self._counts: dict[str, int] = {}
        start = 0
        while start < len(text):
            end = min(len(text), start + _WINDOW_CHARS)
            if end < len(text):
                # Between words where there are any, so that no token is cut.
                end = max(text.rfind("\n", start, end), text.rfind(" ", start, end), start) + 1
                end = end if end > start + 1 else min(len(text), start + _WINDOW_CHARS)
            encoding = tokenizer.encode(text[start:end], add_special_tokens=False)
            self._starts.extend(start + offset for offset, _ in encoding.offsets)
            start = end

    def count(self, start: int, end: int) -> int:
        """Tokens of text[start:end]; one more or less where the piece is cut inside a word."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def count_text(self, text: str) -> int:
        """Tokens of another text, such as a heading."""
        if text not in self._counts:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            self._counts[text] = len(encoding.ids)
        return self._counts[text]
