"""The lexical leg: BM25 as sparse vectors, which the store multiplies by the terms' IDF.

Term weights follow Robertson and Zaragoza (2009), k 1.2 and b 0.75. The vectors are those of
Qdrant's own `qdrant/bm25`, so a collection can be queried by other clients too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qdrant_edge import Bm25, Bm25Config, TokenizerType

_ONLY_COUNTS: Final = 1e9
"""With this k, and b 0, the weight of a term is how often it occurs."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector. Indices ascend and are distinct."""

    indices: list[int]
    values: list[float]


def query(text: str, language: str) -> Sparse:
    """The vector to search with; empty when `text` holds no word, only stop words or symbols."""
    vector = _model(language, 1.0).embed_query(text)
    return Sparse(list(vector.indices), list(vector.values))


def documents(texts: Sequence[str], language: str, mean_words: float) -> list[Sparse]:
    """The vectors to store. `mean_words` is the mean of `words` over the corpus."""
    model = Bm25(_config(language, avg_len=mean_words))
    vectors = (model.embed_document(text) for text in texts)
    return [Sparse(list(vector.indices), list(vector.values)) for vector in vectors]


def words(texts: Sequence[str], language: str) -> list[int]:
    """How many words of each text are indexed; stop words are not."""
    counter = Bm25(_config(language, k=_ONLY_COUNTS, b=0.0))
    return [round(sum(counter.embed_document(text).values)) for text in texts]


def _config(
    language: str, *, avg_len: float = 1.0, k: float | None = None, b: float | None = None
) -> Bm25Config:
    # The multilingual tokenizer cuts scripts without spaces (Chinese, Japanese, Thai) into words.
    return Bm25Config(
        language=language, tokenizer=TokenizerType.Multilingual, avg_len=avg_len, k=k, b=b
    )


@functools.lru_cache(maxsize=64)
def _model(language: str, avg_len: float) -> Bm25:
    return Bm25(_config(language, avg_len=avg_len))
