"""Specific terms of a question: names, numbers, codes, rare words.

A passage that shares all other words with the question, and lacks one of these, is about something
else: another country, another version, another error code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from functools import cache, lru_cache
from importlib import resources
from typing import Final, NamedTuple

from raglan.language import detect
from raglan.terms import is_stop_word, stem, terms

_WEIGHTS: Final = {10: 0.03, 20: 0.1, 35: 0.25, 40: 0.3, 50: 0.3}
"""Weight of an English word by its SCOWL size, the most common first; other words weigh 1."""

_ANY_LANGUAGE: Final = 0.07
"""The same for a word of a language without such a list."""

_TOKEN: Final = re.compile(
    r"\d[\d.,]*\d\b|[^\s\"`()\[\]{}<>,;!?=@/\\\u201c\u201d\u00ab\u00bb\u060c\u061f]+"
)
_EDGES: Final = re.compile(r"^[^\w+#]+|[^\w+#]+$")
_VERSION: Final = re.compile(r"[vV]?\d+(?:\.\d+)+|[vV]\d+")
_INTEGER: Final = re.compile(r"\d[\d,.]*")
_YEAR: Final = re.compile(r"1\d{3}|20\d{2}")
_CODE: Final = re.compile(
    r"\w*[^\W_]_[^\W_]\w*|\w*[a-z][A-Z]\w*|(?=\w*\d)(?=\w*[^\W\d_]{2})[\w-]{4,}|[A-Z]+-\d{2,}"
    r"|[^\W\d_]\d{3,}\w*"
)
_COMPOUND: Final = re.compile(r"[^\W_]+(?:[-.:+#]+[^\W_]+)+")
_JOINTS: Final = re.compile(r"[-.:+#]+")
_CODE_WEIGHT: Final = 1.2
"""Of a name in code and of a version: nothing else stands for them."""

_SHORT: Final = 2
"""Characters of an unknown word that is often an abbreviation: "tv", "NY"."""

_EXAMPLE: Final = frozenset({"as", "like", "eg", "e.g.", "example"})
_NOUNS_IN_CAPITALS: Final = frozenset({"de", "lb"})

ABBREVIATIONS: Final = {
    "app": "application", "arg": "argument", "args": "arguments", "auth": "authentication",
    "cmd": "command", "conf": "configuration", "config": "configuration", "cli": "command",
    "db": "database", "dep": "dependency", "deps": "dependencies", "dev": "development",
    "dir": "directory", "doc": "documentation", "docs": "documentation", "env": "environment",
    "func": "function", "info": "information", "max": "maximum", "min": "minimum",
    "param": "parameter", "params": "parameters", "pkg": "package", "prod": "production",
    "ref": "reference", "repo": "repository", "req": "request", "spec": "specification",
    "var": "variable", "vars": "variables",
}  # fmt: skip
"""Short forms that a question has for words of the document."""


class Likeness(Enum):
    """Variants that may stand for a word of the question."""

    NONE = 0
    NUMBER = 1
    """A longer version, or a decade: 3.11.4 for 3.11, 1950s for 1950."""
    WORD = 2
    """Another form of it, or the right spelling of it."""


class Specific(NamedTuple):
    """A word or number of the question."""

    terms: frozenset[str]
    """Any of these stands for it."""
    weight: float
    """Weight of the term: 1 for a name, above 1 for code."""
    likeness: Likeness = Likeness.NONE
    """Variants that count as the term."""

    def is_in(self, held: Set[str]) -> bool:
        """Return whether a text with the terms `held` has it, as it is."""
        return not self.terms.isdisjoint(held)

    def is_alike_in(self, held: Set[str]) -> bool:
        """Return whether a text with the terms `held` has it or what is like it."""
        if self.is_in(held):
            return True
        if self.likeness is Likeness.NONE:
            return False
        like = _continues if self.likeness is Likeness.NUMBER else _is_alike
        return any(like(term, other) for term in self.terms for other in held)


def specifics_of(question: str, language: str, *, most: int = 64) -> list[Specific]:
    """Extract at most `most` specific terms of `question`, the heaviest first."""
    tokens = [token for each in _TOKEN.findall(question) if (token := _EDGES.sub("", each))]
    own = detect(question)
    found: dict[frozenset[str], Specific] = {}
    for position, token in enumerate(tokens):
        if is_stop_word(token.casefold(), own) and not token.isupper():
            continue
        for each in _specifics(tokens, position, token, language):
            if each.terms and each.terms not in found:
                found[each.terms] = each
    return sorted(found.values(), key=lambda each: -each.weight)[:most]


def _specifics(
    tokens: Sequence[str], position: int, token: str, language: str
) -> Iterator[Specific]:
    before = tokens[position - 1] if position else ""
    is_example = not _EXAMPLE.isdisjoint(tokens[max(0, position - 3) : position])
    after = tokens[position + 1] if position + 1 < len(tokens) else ""
    if _VERSION.fullmatch(token):
        weight = 0.2 if is_example else _CODE_WEIGHT
        number = token.lower().removeprefix("v")
        yield Specific(frozenset({number, f"v{number}"}), weight, Likeness.NUMBER)
    elif _INTEGER.fullmatch(token):
        yield _number(token, before, after)
    elif _CODE.fullmatch(token):
        yield Specific(frozenset(terms(token, language)[:1]), _CODE_WEIGHT)
    elif _COMPOUND.fullmatch(token):
        whole = frozenset(terms(token, language)[:1])
        for part in _JOINTS.split(token):
            for each in _specifics([part], 0, part, language):
                yield each._replace(terms=each.terms | whole)
    else:
        yield from _word(token, position, language)


def _number(token: str, before: str, after: str) -> Specific:
    number = token.strip(".,").replace(",", "")
    if _YEAR.fullmatch(number):
        weight = 0.5
    elif before[:1].isupper() or not after[:1].islower():
        weight = 0.7
    else:
        # "15 seconds", "100 requests": the case at hand, which no document needs to have.
        weight = 0.2
    return Specific(frozenset({number, f"v{number}"}), weight, Likeness.NUMBER)


def _word(token: str, position: int, language: str) -> Iterator[Specific]:
    token = re.split("['\u2019]", token)[0]
    lower = token.casefold()
    if len(token) < 2 or (is_stop_word(lower, language) and not token.isupper()):
        return
    found = frozenset(terms(token, language))
    weight = _weight(lower, language)
    if position and token[:1].isupper() and language not in _NOUNS_IN_CAPITALS:
        weight = min(1.0, weight + 0.5)
    if language == "en" and lower in ABBREVIATIONS:
        found |= {stem(ABBREVIATIONS[lower], language)}
        weight = _WEIGHTS[10]
    if weight == 1 and len(token) <= _SHORT:
        weight = 0.5
    yield Specific(found, weight, Likeness.WORD)


def _continues(number: str, other: str) -> bool:
    return other.startswith(number) and not other[len(number)].isdigit()


def _is_alike(word: str, other: str) -> bool:
    """Return whether two stems differ by an ending or, if they are long, by a typing error."""
    shorter, longer = sorted((word, other), key=len)
    if len(shorter) < 5 or word[0] != other[0]:
        return False
    if longer.startswith(shorter) and len(longer) <= len(shorter) + 3:
        return True
    allowed = 1 if len(word) < 8 else 2
    return len(longer) - len(shorter) <= allowed and _edits(word, other, allowed) <= allowed


def _edits(one: str, other: str, most: int) -> int:
    """Insertions, deletions, replacements and swaps from `one` to `other`, at most `most` + 1."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        after = [i]
        for j, b in enumerate(other, 1):
            cost = min(row[j] + 1, after[-1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            after.append(cost)
        before, row = row, after
        if min(row) > most:
            return most + 1
    return row[-1]


def _weight(word: str, language: str) -> float:
    if language != "en":
        return _ANY_LANGUAGE
    stemmed = stem(word, "en")
    known = _common_words().get(stemmed)
    if known is None:
        known = _weight_of_misspelt(stemmed)
    return known


@lru_cache(maxsize=10_000)
def _weight_of_misspelt(word: str) -> float:
    """The weight of an unknown word: that of the everyday word which it misspells, or 1."""
    for other, weight in _common_words().items():
        if (
            weight <= _WEIGHTS[20]
            and other[0] == word[0]
            and abs(len(other) - len(word)) <= 1
            and _is_alike(word, other)
        ):
            return weight
    return 1.0


@cache
def _common_words() -> Mapping[str, float]:
    text = resources.files("raglan_generator").joinpath("common_words.txt").read_text("ascii")
    weights: dict[str, float] = {}
    for section in text.split("\n[")[1:]:
        size, _, listed = section.partition("]")
        weights |= {stem(word, "en"): _WEIGHTS[int(size)] for word in listed.split()}
    return weights
