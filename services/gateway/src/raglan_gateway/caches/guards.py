"""Guards of the semantic cache: words that make two questions differ, however near their vectors.

An embedding hardly sees a number, a name, a negation or the direction of a comparison. Each guard
compares one kind of such words. In doubt a guard refuses: a refused paraphrase costs a run of the
pipeline, a wrong answer costs more. `make bench-gateway ONLY=semantic` measures each.

Guards know English only; `Features.of` has none for another language.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from raglan.support_words import NEGATIONS, NUMBERS, ORDINALS, TENS
from raglan.terms import is_stop_word, stem

from raglan_gateway.caches.contrasts import (
    CONTRASTS,
    DIRECTIONS,
    NEGATING_PREFIXES,
    SYNONYMS,
    UNITS,
    WITHOUT,
)
from raglan_gateway.caches.question_words import FILLERS, question_form
from raglan_gateway.caches.verb_words import AGREEING, modality, tense

LONGEST: Final = 300
"""Characters of a question; a longer one differs in more than the guards look at."""

_ENGLISH: Final = "en"
_OTHERS: Final = ("da", "de", "es", "fi", "fr", "hu", "it", "nl", "no", "pt", "ro", "sv", "tr")
"""Languages of the same alphabet, told from English by their function words."""

_TOKEN: Final = re.compile(
    r"(?<![^\s(\"'`])--?\w[\w-]*|\d+(?:[.,:/]\d+)*%?|\w+(?:[-_./:@&]+\w+)*(?:\+\+|\#)?|[%€$£]"
)
_AMOUNT: Final = re.compile(r"(\d+(?:[.,]\d+)*)([^\W\d_]+|%)")
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER: Final = re.compile(r"\d+(?:[.,:/]\d+)*")
_NOT: Final = re.compile(r"(?:n['\u2019]t|(?<=ca)nnot)\b", re.IGNORECASE)
_POSSESSIVE: Final = re.compile(r"['\u2019]s?\b")
_PLAIN: Final = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_COUNTED: Final = {"one": "1"} | NUMBERS[_ENGLISH] | TENS[_ENGLISH] | ORDINALS[_ENGLISH]


@dataclass(frozen=True, slots=True)
class Features:
    """Words of a question that the guards compare."""

    form: str
    """Kind of the question: who, when, how many, yes or no."""
    facts: tuple[str, ...]
    """Numbers and technical terms, as they are written, in their order."""
    names: tuple[str, ...]
    """Words with a capital inside the question, casefolded, in their order."""
    words: tuple[str, ...]
    """All words, casefolded."""
    negations: tuple[int, int]
    """Number of words that negate, and of those that say `without`."""
    contrasts: tuple[str, ...]
    """Words that have an opposite, sorted."""
    units: tuple[str, ...]
    content: tuple[str, ...]
    """Stems of the words that are no function words, in their order."""
    links: tuple[int, int]
    """Number of occurrences of `by`, and of `of` and possessives."""
    modality: str
    """Modality that it asks for (must, should, may); empty for none."""
    tense: str
    directions: frozenset[tuple[str, str]]
    """Stems of content words with the direction before them: (queue, to)."""

    @classmethod
    def of(cls, question: str) -> Features | None:
        """Analyse a question; None where it is not English or too long to be compared."""
        if len(question) > LONGEST:
            return None
        return _analysed(question)


Guard = Callable[[Features, Features], bool]


def same_question(one: Features, other: Features) -> bool:
    """Return whether no guard tells the two questions apart."""
    return all(guard(one, other) for guard in GUARDS.values())


def _numbers(one: Features, other: Features) -> bool:
    return one.facts == other.facts


def _names(one: Features, other: Features) -> bool:
    """Each has the other's names, in the same order. Case is no matter: some write none."""
    if not (set(one.names) <= set(other.words) and set(other.names) <= set(one.words)):
        return False
    both = set(one.names) | set(other.names)
    return [word for word in one.words if word in both] == [
        word for word in other.words if word in both
    ]


def _negations(one: Features, other: Features) -> bool:
    if one.negations != other.negations:
        return False
    added, removed = set(one.content) - set(other.content), set(other.content) - set(one.content)
    return not any(
        f"{prefix}{word}" in longer
        for shorter, longer in ((added, removed), (removed, added))
        for word in shorter
        for prefix in NEGATING_PREFIXES
    )


def _contrasts(one: Features, other: Features) -> bool:
    return one.contrasts == other.contrasts


def _units(one: Features, other: Features) -> bool:
    return one.units == other.units


def _forms(one: Features, other: Features) -> bool:
    return one.form == other.form


def _content(one: Features, other: Features) -> bool:
    return Counter(one.content) == Counter(other.content)


def _order(one: Features, other: Features) -> bool:
    """Roles are told by the order of words, unless `by` or `of` turns it round."""
    both = set(one.content) & set(other.content)
    is_same = [word for word in one.content if word in both] == [
        word for word in other.content if word in both
    ]
    if one.links[0] != other.links[0]:
        return not is_same
    return is_same or one.links[1] != other.links[1]


def _modalities(one: Features, other: Features) -> bool:
    both = frozenset({one.modality, other.modality})
    return len(both) == 1 or both in AGREEING


def _tenses(one: Features, other: Features) -> bool:
    return one.tense == other.tense


def _directions(one: Features, other: Features) -> bool:
    """No word follows `from` in one and `to` in the other. Without any, other words say it."""
    shared = {stem for stem, _ in one.directions} & {stem for stem, _ in other.directions}
    return all(
        {way for stem, way in one.directions if stem == each}
        == {way for stem, way in other.directions if stem == each}
        for each in shared
    )


GUARDS: Final[Mapping[str, Guard]] = {
    "numbers": _numbers,
    "names": _names,
    "negations": _negations,
    "contrasts": _contrasts,
    "units": _units,
    "question word": _forms,
    "content": _content,
    "order": _order,
    "modality": _modalities,
    "tense": _tenses,
    "direction": _directions,
}
"""Guards by the words that they compare."""


@lru_cache(maxsize=256)
def _analysed(question: str) -> Features | None:
    negated = len(_NOT.findall(question))
    possessives = len(_POSSESSIVE.findall(question))
    plain = _POSSESSIVE.sub(" ", _NOT.sub(" ", question))
    tokens = _TOKEN.findall(plain)
    words = [token.casefold() for token in tokens]
    if not _is_english(words):
        return None
    facts: list[str] = []
    names: list[str] = []
    for position, token in enumerate(tokens):
        if found := _fact(token, position):
            facts += found
        elif _is_name(token, position):
            names.append(words[position])
    negated += sum(word in NEGATIONS[_ENGLISH] for word in words)
    without = sum(word in WITHOUT for word in words)
    form, asking = question_form(words)
    stems = [stem(word, _ENGLISH) for word in words]
    pairs = list(zip(words, stems, strict=True))
    return Features(
        form=form,
        facts=tuple(facts),
        names=tuple(names),
        words=tuple(words),
        negations=(negated, without),
        contrasts=tuple(sorted(_listed(words, CONTRASTS))),
        units=tuple(sorted([*_listed(words, UNITS), *_amount_units(tokens)])),
        content=tuple(_content_of(pairs, asking)),
        links=(words.count("by"), words.count("of") + possessives),
        modality=modality(words),
        tense=tense(words),
        directions=frozenset(_directions_of(pairs)),
    )


def _is_english(words: list[str]) -> bool:
    """Return whether English has the most function words in `words`, and one at least."""
    mine = sum(is_stop_word(word, _ENGLISH) for word in words)
    if not mine or not all(word.isascii() for word in words if is_stop_word(word, _ENGLISH)):
        return False
    return all(sum(is_stop_word(word, code) for word in words) <= mine for code in _OTHERS)


def _fact(token: str, position: int) -> list[str]:
    """Return what of a token must be the same letter by letter."""
    if amount := _AMOUNT.fullmatch(token):
        return [_plain_number(amount[1])]
    if _NUMBER.fullmatch(token):
        return [_plain_number(token)]
    if token.casefold() in _COUNTED:
        return [_COUNTED[token.casefold()]]
    if len(token) == 1:
        is_word = position == 0 or token in ("I", token.lower())
        return [] if is_word else [token]
    # An acronym is a name: users write it in small letters too.
    is_word = token.islower() or token[1:].islower() or token.isupper()
    return [] if is_word and _PLAIN.fullmatch(token) else [token]


def _is_name(token: str, position: int) -> bool:
    if len(token) > 1 and token.isupper():
        return True
    return position > 0 and token[0].isupper() and not is_stop_word(token.casefold(), _ENGLISH)


def _plain_number(number: str) -> str:
    return number.replace(",", "") if _GROUPED.fullmatch(number) else number


def _amount_units(tokens: list[str]) -> Iterator[str]:
    """Yield the units that stand in one word with their number: 5mg."""
    for token in tokens:
        if (amount := _AMOUNT.fullmatch(token)) is not None:
            unit = amount[2].casefold()
            yield UNITS.get(unit, unit)


def _listed(words: list[str], known: Mapping[str, str]) -> list[str]:
    return [known[word] for word in words if word in known]


def _directions_of(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the stems of the content words next behind a direction, with the direction."""
    way, has_begun = "", False
    for word, stemmed in pairs:
        if (found := DIRECTIONS.get(word)) is not None:
            way, has_begun = found, False
        elif not is_stop_word(word, _ENGLISH):
            has_begun = True
            if way:
                yield stemmed, way
        elif has_begun:
            way = ""


def _content_of(pairs: list[tuple[str, str]], asking: frozenset[str]) -> Iterator[str]:
    for word, stemmed in pairs:
        if not (
            word in asking
            or word in FILLERS
            or word in NEGATIONS[_ENGLISH]
            or is_stop_word(word, _ENGLISH)
        ):
            same = CONTRASTS.get(word) or UNITS.get(word)
            yield same or SYNONYMS.get(word) or SYNONYMS.get(stemmed) or stemmed
