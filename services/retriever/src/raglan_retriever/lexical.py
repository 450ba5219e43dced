"""The lexical leg: BM25 as sparse vectors, which the store multiplies by the terms' IDF.

A vector has one value for each term of `raglan.terms`. Term weights follow Robertson and Zaragoza,
"The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with k1 1.2 and b 0.75.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from raglan.language import detect
from raglan.terms import identifiers, query_terms, terms, whole_terms

K1: Final = 1.2
B: Final = 0.75

_MAX_QUERY_TERMS: Final = 256
"""A question of more terms is searched by its first ones: every term costs the store a list."""

_MAX_IDENTIFIERS: Final = 8
"""Each is looked for on its own."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector; its indices are distinct."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Analysis:
    """The terms of one text."""

    language: str
    """ISO 639-1: whose stemmer and stop words were used."""

    counts: dict[int, int]
    """Number of occurrences of each term, by term id."""

    length: int
    """Number of terms."""


def analyse(text: str, language: str, default: str) -> Analysis:
    """Count the terms of a text to index.

    Args:
        text: The text.
        language: ISO 639-1; "" detects it.
        default: Used where detection is uncertain.
    """
    language = language or detect(text) or default
    counts = Counter(map(term_id, terms(text, language)))
    return Analysis(language, counts, counts.total())


def document(analysis: Analysis, mean_length: float) -> Sparse:
    """Return the BM25 vector to store.

    Args:
        analysis: Terms of the text.
        mean_length: Mean number of terms of the collection's texts, above 0.
    """
    norm = K1 * (1 - B + B * analysis.length / mean_length)
    values = [count * (K1 + 1) / (count + norm) for count in analysis.counts.values()]
    return Sparse(list(analysis.counts), values)


def query(
    text: str, languages: Sequence[str], default: str, undivided: Set[str] = frozenset()
) -> Sparse:
    """Return the vector to search with; empty when `text` holds only stop words or symbols.

    Args:
        text: The query.
        languages: ISO 639-1 codes of the collection's texts. The query is analysed by each, so that
            it matches what each analysis made of its words.
        default: Language of the query where detection is uncertain or names none of `languages`.
        undivided: Identifiers of the query whose parts are left out.
    """
    # Detection cannot change the language where there is only one to choose.
    detected = detect(text) if set(languages) - {default} else default
    own = detected if detected in languages else default
    return _equal(query_terms(text, dict.fromkeys([own, *languages]), undivided))


def identified(text: str, languages: Sequence[str], default: str) -> dict[str, Sparse]:
    """Return the vector that finds each identifier of a query as a whole.

    Args:
        text: The query.
        languages: As for `query`.
        default: As for `query`.
    """
    known = languages or [default]
    return {each: _equal(whole_terms(each, known)) for each in identifiers(text)[:_MAX_IDENTIFIERS]}


def _equal(found: Sequence[str]) -> Sparse:
    indices = list(dict.fromkeys(map(term_id, found)))[:_MAX_QUERY_TERMS]
    return Sparse(indices, [1.0] * len(indices))


def term_id(term: str) -> int:
    """Return a stable number of 32 bits for `term`. Two of 100,000 terms share one by chance."""
    return zlib.crc32(term.encode())
