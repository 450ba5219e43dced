"""Contradictions between a sentence and its sources that shared words do not show.

"Returns are accepted within 90 days" shares all but one term with "Returns are accepted within 30
days". Three kinds of words decide by themselves: a number, a name and a negation. Each test is
made to be silent in doubt: what it reports is a contradiction, or made up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, Literal

from raglan.support_words import (
    CASED_NOUNS,
    CONJUNCTIONS,
    EXCEPTIONS,
    NEGATING_PARTS,
    NEGATIONS,
    NUMBERS,
    ORDINALS,
    TENS,
)
from raglan.terms import terms

Conflict = Literal["", "number", "name", "negation"]
"""The part of a sentence that its sources contradict; empty for none."""

_ENOUGH: Final = 0.6
"""Share of a clause's terms that another one must hold to say the same, or the opposite."""
_PREFIX: Final = 5
"""Characters in which a name and its adjective agree: Germany, German."""

_NUMBER: Final = re.compile(
    r"(?<![^\W\d_])(?<![^\W\d_][-.])(?:\d{1,3}(?:[ \u00a0\u202f']\d{3})+(?!\d)(?:[.,]\d+)?"
    r"|\d+(?:[.,:]\d+)*)"
)
"""Digits; those behind a letter belong to an identifier."""
_SEPARATOR: Final = re.compile(r"[., \u00a0\u202f':]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_IDENTIFIER: Final = re.compile(r"[^\W\d_][\w.-]*\d[\w-]*")
_BREAKS: Final = r"(?<!\d)[,:]|[,:](?!\d)|[;()\u2014\u3001\u3002\uff0c\uff1b]|\s[-\u2013]\s"
_LIST_NUMBER: Final = re.compile(r"^\s*(?:[-*+>]\s+)?\(?\d{1,3}[.)]\s")
_CODE: Final = re.compile(r"`[^`\n]*`")
_ENGLISH_NOT: Final = re.compile(r"n['\u2019]t\b", re.IGNORECASE)
_NAME: Final = re.compile(r"\b[^\W\d_a-z][^\W\d_]*\b")
_SENTENCE_END: Final = re.compile(r"[.!?:\u2026\"\u201c\u201e(*]\s*\Z|^[\s\W\d]*\Z")


@dataclass(frozen=True)
class _Unit:
    """A sentence, or a clause of one."""

    text: str
    language: str
    sentence: _Unit | None = None
    """The whole of which it is a part."""

    @cached_property
    def terms(self) -> frozenset[str]:
        return frozenset(terms(self.text, self.language))

    @cached_property
    def numbers(self) -> tuple[frozenset[str], ...]:
        return tuple(_numbers_in(self.text, self.language))

    @cached_property
    def ordinals(self) -> frozenset[str]:
        known = ORDINALS.get(self.language, {})
        return frozenset(known[word] for word in self.words if word in known)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(_names_in(self.text, self.language))

    @cached_property
    def words(self) -> list[str]:
        return _words(self.text)

    @cached_property
    def is_negated(self) -> bool:
        return _is_negated(self.text, self.language)

    def holds(self, number: frozenset[str]) -> bool:
        """Return whether it has a number that may be read alike."""
        return bool(number & self.ordinals) or any(number & other for other in self.numbers)


class Source:
    """A passage that sentences may cite, analysed once.

    Args:
        sentences: of the passage.
        language: ISO 639-1 code.
        context: what else is known of it: title and headings.
    """

    def __init__(self, sentences: Sequence[str], *, language: str, context: str = "") -> None:
        self.language = language
        self._sentences = sentences
        self.context = _Unit(context, language)

    @cached_property
    def _squeezed(self) -> str:
        return _squeezed(" ".join(self._sentences))

    def quotes(self, sentence: str) -> bool:
        """Return whether `sentence` stands in it, letter for letter."""
        return _squeezed(sentence) in self._squeezed

    @cached_property
    def units(self) -> list[_Unit]:
        """Its sentences, each cut so that numbers of several clauses stand apart."""
        return [
            _Unit(part, self.language, whole)
            for whole in (_Unit(sentence, self.language) for sentence in self._sentences)
            for part in _facts_apart(whole.text, self.language)
        ]

    @cached_property
    def clauses(self) -> list[_Unit]:
        """Of the sentences that say something or its opposite without an exception."""
        return [
            _Unit(clause, self.language)
            for sentence in self._sentences
            if not _has_exception(sentence, self.language)
            for clause in _clauses(sentence, self.language)
        ]


def find_conflict(sentence: str, sources: Sequence[Source], *, language: str) -> Conflict:
    """Find what of `sentence` its sources contradict.

    Args:
        sentence: of an answer, without citation markers.
        sources: what it cites. Names and negations are compared only within one language.
        language: ISO 639-1 code of `sentence`.

    Returns:
        The first of number, name and negation that is contradicted; empty if none is.
    """
    claim = _Unit(_CODE.sub(" ", _LIST_NUMBER.sub("", sentence)), language)
    units = [unit for source in sources for unit in source.units]
    if not units:
        return ""
    around = [source.context for source in sources]
    if any(source.quotes(sentence) for source in sources):
        return ""
    if any(_is_contradicted(number, claim, units, around) for number in claim.numbers):
        return "number"
    if any(source.language != language for source in sources):
        return ""
    if _has_foreign_name(claim, [*units, *around]):
        return "name"
    clauses = [clause for source in sources for clause in source.clauses]
    return "negation" if _is_opposed(claim, clauses) else ""


# --- Numbers --------------------------------------------------------------------------------------


def _is_contradicted(
    number: frozenset[str], claim: _Unit, units: Sequence[_Unit], around: Sequence[_Unit]
) -> bool:
    """Return whether no source has `number`, or has it only where it counts something else.

    It counts something else in a unit if another unit, with other numbers, holds all that the claim
    shares with that one and more of it; or if it has other names in the claim's place.
    """
    holders = [unit for unit in units if unit.holds(number)]
    if not holders:
        if any(context.holds(number) for context in around):
            return False
        # A number in words may count what the source lists.
        return not _is_in_words(number, claim) or any(
            unit.numbers and 2 * len(claim.terms & unit.terms) >= len(claim.terms) for unit in units
        )
    plain = {value for each in claim.numbers for value in each}
    # A unit whose numbers the claim has as well denies nothing.
    rivals = [unit for unit in units if not all(plain & other for other in unit.numbers)]
    shared = claim.terms - plain
    for holder in holders:
        whole = holder.sentence
        is_restated = whole and all(plain & other for other in whole.numbers)
        held = shared & (whole if whole and is_restated else holder).terms
        outdone = any(held < (shared & rival.terms) for rival in rivals if not rival.holds(number))
        if not outdone and not _has_other_name(claim, holder, rivals, around):
            return False
    return True


def _has_other_name(
    claim: _Unit, holder: _Unit, rivals: Sequence[_Unit], around: Sequence[_Unit]
) -> bool:
    """Return whether `holder` speaks of another name, and a rival of the claim's."""
    if claim.language in CASED_NOUNS or holder.language != claim.language:
        return False
    known = (holder, *around)
    missing = [name for name in claim.names if not any(_has_name(name, each) for each in known)]
    others = [name for name in holder.names if not _has_name(name, claim)]
    return bool(others) and any(_has_name(name, rival) for name in missing for rival in rivals)


def _is_in_words(number: frozenset[str], claim: _Unit) -> bool:
    return not any(number & frozenset(_values(each)) for each in _NUMBER.findall(claim.text))


def _numbers_in(text: str, language: str) -> Iterator[frozenset[str]]:
    """Each number as the values that it may be read as: 1,000 is a thousand, or one."""
    text = unicodedata.normalize("NFKC", text)
    for match in _NUMBER.finditer(text):
        yield frozenset(_values(match.group()))
    words = NUMBERS.get(language, {}) | TENS.get(language, {})
    for word in _WORD.findall(text.casefold()):
        if word in words:
            yield frozenset({words[word]})


def _values(number: str) -> Iterator[str]:
    parts = [part.lstrip("0") or "0" for part in _SEPARATOR.split(number)]
    sizes = [len(part) for part in _SEPARATOR.split(number)]
    yield ".".join(parts)
    if len(parts) > 1 and all(size == 3 for size in sizes[1:]):
        yield "".join(_SEPARATOR.split(number)).lstrip("0") or "0"
    if len(parts) > 1 and number[-sizes[-1] - 1] in ".,":
        whole = "".join(_SEPARATOR.split(number)[:-1]).lstrip("0") or "0"
        fraction = _SEPARATOR.split(number)[-1].rstrip("0")
        grouped = all(size == 3 for size in sizes[1:-1])
        if grouped:
            yield f"{whole}.{fraction}" if fraction else whole


def _facts_apart(sentence: str, language: str) -> list[str]:
    """`sentence` cut so that each part has the numbers of one clause, and what belongs to them."""
    parts: list[str] = []
    has_number = False
    for clause in _clauses(sentence, language):
        numbered = any(_numbers_in(clause, language))
        if parts and not (has_number and numbered):
            parts[-1] += f" {clause}"
            has_number = has_number or numbered
        else:
            parts.append(clause)
            has_number = numbered
    return parts


def _clauses(sentence: str, language: str) -> list[str]:
    return [part for part in _clause_end(language).split(sentence) if part and part.strip()]


@cache
def _clause_end(language: str) -> re.Pattern[str]:
    words = "|".join(CONJUNCTIONS.get(language, ()))
    return re.compile(rf"{_BREAKS}|\b(?:{words})\b" if words else _BREAKS)


# --- Names ----------------------------------------------------------------------------------------


def _has_foreign_name(claim: _Unit, known: Sequence[_Unit]) -> bool:
    """Return whether it has a name that none of the `known` texts has."""
    if claim.language in CASED_NOUNS:
        return False
    return any(
        not any(_has_name(name, unit) for unit in known) and not _is_acronym_of(name, known)
        for name in claim.names
    )


def _names_in(text: str, language: str) -> Iterator[str]:
    """Words with a capital inside of a sentence, words all in capitals, and identifiers."""
    yield from (word for word in _IDENTIFIER.findall(text) if not word.islower())
    for match in _NAME.finditer(text):
        word = match.group()
        is_acronym = len(word) > 1 and word.isupper()
        if len(word) < 2 or (not is_acronym and _SENTENCE_END.search(text[: match.start()])):
            continue
        yield word


def _has_name(name: str, unit: _Unit) -> bool:
    folded = name.casefold()
    if any(character.isdigit() for character in name):
        return _squeezed(name) in _squeezed(unit.text)
    beginning = folded[: max(_PREFIX, len(folded) - 3)] if len(folded) > 3 else folded
    return any(
        word == folded or (len(folded) > 3 and word.startswith(beginning)) for word in unit.words
    )


def _is_acronym_of(name: str, units: Collection[_Unit]) -> bool:
    if not name.isupper():
        return False
    wanted = name.casefold()
    return any(wanted in "".join(word[0] for word in unit.words) for unit in units)


def _squeezed(text: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


# --- Negations ------------------------------------------------------------------------------------


def _is_opposed(claim: _Unit, clauses: Sequence[_Unit]) -> bool:
    """Return whether the `clauses` nearest to one of the claim all say the opposite."""
    if _has_exception(claim.text, claim.language):
        return False
    for text in _clauses(claim.text, claim.language):
        said = _Unit(text, claim.language)
        overlaps = [len(said.terms & clause.terms) for clause in clauses]
        best = max(overlaps, default=0)
        if best < max(2, _ENOUGH * len(said.terms)):
            continue
        nearest = [each for each, held in zip(clauses, overlaps, strict=True) if held == best]
        if all(clause.is_negated != said.is_negated for clause in nearest):
            return True
    return False


def _is_negated(text: str, language: str) -> bool:
    if any(part in text for part in NEGATING_PARTS.get(language, ())):
        return True
    if language == "en" and _ENGLISH_NOT.search(text):
        return True
    return not NEGATIONS.get(language, frozenset()).isdisjoint(_words(text))


def _has_exception(text: str, language: str) -> bool:
    return not EXCEPTIONS.get(language, frozenset()).isdisjoint(_words(text))
