"""The lexical leg: BM25 as sparse vectors, which the store multiplies by the terms' IDF.

Term weights follow Robertson and Zaragoza (2009), k 1.2 and b 0.75, and are those of Qdrant's own
`qdrant/bm25`. Scripts that put no space between words are cut by a dictionary, the others by
Qdrant's word tokenizer: the dictionary one drops numbers, and costs .003 of nDCG@10 in English.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qdrant_edge import Bm25, Bm25Config, TokenizerType

_ONLY_COUNTS: Final = 1e9
"""With this k, and b 0, the weight of a term is how often it occurs."""

_UNSPACED: Final = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff"  # Japanese syllables
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "]+"
)


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector; its indices are distinct."""

    indices: list[int]
    values: list[float]


def query(text: str, language: str) -> Sparse:
    """The vector to search with; empty when `text` holds only stop words or symbols."""
    return _querying(language).query(text)


def documents(texts: Sequence[str], language: str, mean_words: float) -> list[Sparse]:
    """The vectors to store. `mean_words` is the mean of `words` over the corpus."""
    model = _Bm25(language, avg_len=mean_words)
    return [model.document(text) for text in texts]


def words(texts: Sequence[str], language: str) -> list[int]:
    """How many words of each text are indexed; stop words are not."""
    counter = _Bm25(language, k=_ONLY_COUNTS, b=0.0)
    return [round(sum(counter.document(text).values)) for text in texts]


def known_language(language: str) -> str:
    """`language`, if there are stop words for it.

    Raises:
        ValueError: there are none.
    """
    query("", language)
    return language


class _Bm25:
    """Two models over the same terms: one for words set apart by spaces, one for the others."""

    def __init__(
        self, language: str, *, avg_len: float = 1.0, k: float | None = None, b: float | None = None
    ) -> None:
        self._spaced, self._unspaced = (
            Bm25(Bm25Config(language=language, tokenizer=tokenizer, avg_len=avg_len, k=k, b=b))
            for tokenizer in (TokenizerType.Word, TokenizerType.Multilingual)
        )

    def query(self, text: str) -> Sparse:
        return _joined(text, self._spaced.embed_query, self._unspaced.embed_query)

    def document(self, text: str) -> Sparse:
        return _joined(text, self._spaced.embed_document, self._unspaced.embed_document)


def _joined(text: str, spaced: Callable[[str], Any], unspaced: Callable[[str], Any]) -> Sparse:
    runs = _UNSPACED.findall(text)
    if not runs:
        # The dictionary is not even loaded (240 ms, 50 MB) where nothing needs it.
        vector = spaced(text)
        return Sparse(list(vector.indices), list(vector.values))
    weights: dict[int, float] = {}
    for vector in (spaced(_UNSPACED.sub(" ", text)), unspaced(" ".join(runs))):
        for index, weight in zip(vector.indices, vector.values, strict=True):
            weights[index] = weights.get(index, 0.0) + weight
    return Sparse(list(weights), list(weights.values()))


@functools.lru_cache(maxsize=8)
def _querying(language: str) -> _Bm25:
    return _Bm25(language)
