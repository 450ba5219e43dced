"""Abbreviations that documents define: "mesenchymal stem cells (MSCs)".

A chunk that defines one gets two more terms in its lexical vector, its marks: one of the short
form, one of the long form. A query's words, as marks, find the chunks that define them, and the
definitions are read from those. So they are kept nowhere else: they come and go with their chunks,
and tenants, filters, restarts and backups hold for them as for any word.

Definitions are found by the algorithm of Schwartz and Hearst, "A Simple Algorithm for Identifying
Abbreviation Definitions in Biomedical Text" (PSB 2003), as abbreviation-extractor has it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from abbreviation_extractor import extract_abbreviation_definition_pairs
from raglan.terms import query_terms, terms

from raglan_retriever.lexical import Sparse, term_id
from raglan_retriever.stores.store import Hit

_READ_CHARS: Final = 8_000
"""Beginning of a chunk that is read. The algorithm takes quadratic time on unbalanced brackets."""
_MOST_BRACKETS: Final = 200
"""A text with more of them is code or a formula, not prose."""
_MOST_DEFINITIONS: Final = 32
"""Of one chunk."""

_SHORT_FIRST: Final = re.compile(r"\b([A-Z][A-Za-z0-9-]{1,9}) \(([^()\n]{5,80})\)")
"""The other order, which the algorithm leaves out: "MSCs (mesenchymal stem cells)"."""
_SHORT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,14}")
_WORD: Final = re.compile(r"[^\s()\[\],;:!?\"'\u201c\u201d]+")

_MOST_TERMS: Final = 48
"""Of a query, whose neighbours are looked up as long forms."""
_LONGEST: Final = 6
"""Terms of a long form."""
_MOST_LANGUAGES: Final = 4
_MOST_MARKS: Final = 512
LOOKED_AT: Final = 16
"""Most chunks that are read for definitions of a query's words."""
_MAJORITY: Final = 0.5
"""Least share of the documents which define a short form in this way. Of two ways both may have it;
of more that are equally frequent none."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A short form and what it stands for, as they are written."""

    short: str
    long: str


@dataclass(frozen=True, slots=True)
class OtherForm:
    """A query with its abbreviations written out, and what is written out abbreviated."""

    vector: Sparse
    synonyms: dict[str, list[str]]
    """Form in the query -> the other forms that were put in its place."""


def definitions(text: str) -> list[Definition]:
    """Return the abbreviations that `text` defines, each once."""
    text = text[:_READ_CHARS]
    if not 0 < text.count("(") <= _MOST_BRACKETS:
        return []
    turned = _SHORT_FIRST.sub(r"\2 (\1)", text)
    found = [
        Definition(pair.abbreviation, " ".join(pair.definition.split()))
        for each in dict.fromkeys((text, turned))
        for pair in extract_abbreviation_definition_pairs(each, ignore_errors=True)
        if _SHORT.fullmatch(pair.abbreviation)
    ]
    return list(dict.fromkeys(found))[:_MOST_DEFINITIONS]


def marked(words: Sparse, text: str, language: str) -> Sparse:
    """Add to a chunk's vector the marks by which it is found as one that defines abbreviations.

    Args:
        words: the vector of its words.
        text: the chunk's.
        language: ISO 639-1; of the analysis of its words.
    """
    found = [
        term_id(mark)
        for each in definitions(text)
        if (long := _long_key(each.long, language))
        for mark in (_short_mark(_short_key(each.short)), _long_mark(long))
    ]
    fresh = list(dict.fromkeys(found).keys() - set(words.indices))
    return Sparse([*words.indices, *fresh], [*words.values, *([1.0] * len(fresh))])


def best(first: Sequence[Hit], second: Sequence[Hit], depth: int) -> list[Hit]:
    """Return the hits of two searches for one question, each with the better of its scores.

    A sum would count a text twice that has both forms, which is how texts define them.
    """
    scores = {hit.id: hit.score for hit in first}
    for hit in second:
        scores[hit.id] = max(hit.score, scores.get(hit.id, hit.score))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Hit(id_, score) for id_, score in ranked[:depth]]


class Forms:
    """The words of one query that may be abbreviations, and those that may have one.

    Args:
        text: the query.
        languages: ISO 639-1 codes of the collection's texts.
    """

    def __init__(self, text: str, languages: Sequence[str]) -> None:
        self._text = text
        self._languages = list(languages)[:_MOST_LANGUAGES] or [""]
        self._shorts = {
            _short_key(word): word
            for match in _WORD.finditer(text)
            if _may_be_short(word := match.group().strip("."))
        }
        self._longs = {
            key for language in self._languages for key in _neighbours(terms(text, language))
        }

    @property
    def marks(self) -> Sparse:
        """Vector that finds the chunks which define any of them; it may be empty."""
        found = [term_id(_short_mark(key)) for key in self._shorts]
        found += [term_id(_long_mark(key)) for key in sorted(self._longs)]
        ids = list(dict.fromkeys(found))[:_MOST_MARKS]
        return Sparse(ids, [1.0] * len(ids))

    def other(self, words: Sparse, texts: Iterable[tuple[str, str]]) -> OtherForm | None:
        """Return the query in its other form; None where nothing of it has one.

        Args:
            words: vector of the query as it was asked.
            texts: document and text of the chunks that `marks` found.
        """
        long_of, short_of = self._read(texts)
        vector = dict(zip(words.indices, words.values, strict=True))
        added: dict[int, float] = {}
        synonyms: dict[str, list[str]] = {}
        for key, word in self._shorts.items():
            longs = [
                long
                for long in _most(long_of.get(key, {}))
                # Some queries have both.
                if not _keys(long, self._languages) & self._longs
            ]
            if longs:
                self._take_out(vector, word)
                self._write_out(added, longs)
                synonyms[word] = longs
        for long, counts in short_of.items():
            short = counts.most_common(1)[0][0]
            if _short_key(short) not in self._shorts:
                self._take_out(vector, long)
                added |= {term_id(term): 1.0 for term in query_terms(short, self._languages)}
                synonyms[long] = [short]
        if not synonyms:
            return None
        vector |= {id_: weight for id_, weight in added.items() if id_ not in vector}
        return OtherForm(Sparse(list(vector), list(vector.values())), synonyms)

    def _read(
        self, texts: Iterable[tuple[str, str]]
    ) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
        """Count documents: short form -> long forms; long form -> short forms."""
        long_of: dict[str, Counter[str]] = {}
        short_of: dict[str, Counter[str]] = {}
        written: dict[str, str] = {}
        seen: set[tuple[str, str, str]] = set()
        for document, text in texts:
            for each in definitions(text):
                short = _short_key(each.short)
                keys = _keys(each.long, self._languages)
                key = _long_key(each.long, self._languages[0])
                if not key or (document, short, key) in seen:
                    continue
                seen.add((document, short, key))
                long = written.setdefault(key, each.long)
                if short in self._shorts:
                    long_of.setdefault(short, Counter())[long] += 1
                if keys & self._longs:
                    short_of.setdefault(long, Counter())[each.short] += 1
        return long_of, short_of

    def _take_out(self, vector: dict[int, float], form: str) -> None:
        for term in query_terms(form, self._languages):
            vector.pop(term_id(term), None)

    def _write_out(self, added: dict[int, float], longs: Sequence[str]) -> None:
        """Add the terms of the long forms of one word.

        Together they weigh as much as the square root of their number: as rare words they would
        count for more than the one word that they stand for.
        """
        ids = {term_id(term) for long in longs for term in query_terms(long, self._languages)}
        words = {word for long in longs for word in long.casefold().split()}
        count = len({term for word in words for term in terms(word, self._languages[0])})
        added |= dict.fromkeys(ids, 1 / math.sqrt(max(1, count)) if len(words) > 1 else 1.0)


def _may_be_short(word: str) -> bool:
    """Return whether a word is written as abbreviations are: with capitals inside."""
    return _SHORT.fullmatch(word) is not None and any(map(str.isupper, word[1:]))


def _short_key(short: str) -> str:
    """A short form without case and without the s of its plural."""
    if len(short) > 2 and short.endswith("s") and short[-2].isupper():
        short = short[:-1]
    return short.casefold()


def _long_key(long: str, language: str) -> str:
    return " ".join(terms(long, language))


def _keys(long: str, languages: Iterable[str]) -> set[str]:
    return {key for language in languages if (key := _long_key(long, language))}


def _neighbours(found: Sequence[str]) -> Iterator[str]:
    """Every run of 2 to `_LONGEST` terms."""
    found = found[:_MOST_TERMS]
    for start in range(len(found)):
        for end in range(start + 2, min(start + _LONGEST, len(found)) + 1):
            yield " ".join(found[start:end])


def _most(counts: dict[str, int]) -> list[str]:
    """The long forms that at least half of the documents mean."""
    total = sum(counts.values())
    return [long for long, count in counts.items() if count >= _MAJORITY * total]


# No term of a text begins with a space.
def _short_mark(key: str) -> str:
    return f" short {key}"


def _long_mark(key: str) -> str:
    return f" long {key}"
