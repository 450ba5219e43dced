"""Text to token ids, safely from several threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer


class Tokenizers:
    """The tokenizer of one model; each thread works on a clone of its own.

    A shared one fails with "Already borrowed" as soon as two threads meet in it.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_truncation(max_tokens)
        tokenizer.no_padding()
        self._source = tokenizer.to_str()
        self._local = threading.local()
        self.special_tokens: int = tokenizer.num_special_tokens_to_add(False)
        """Tokens that every text gets around it."""

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at the end to `max_tokens`."""
        return [encoding.ids for encoding in self._own().encode_batch_fast(list(texts))]

    def _own(self) -> Tokenizer:
        tokenizer: Tokenizer | None = getattr(self._local, "tokenizer", None)
        if tokenizer is None:
            tokenizer = self._local.tokenizer = Tokenizer.from_str(self._source)
        return tokenizer
