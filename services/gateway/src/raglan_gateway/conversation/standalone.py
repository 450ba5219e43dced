"""Follow-up questions as stand-alone ones, without a model.

A question is a follow-up if it goes on with the one before ("and on Windows?"), has a pronoun whose
noun is in an earlier turn ("how do I change it?"), or names no subject ("why?"). It then gets the
words of the question before it, and the identifiers of the answer. Any other question stays as it
is, so a new subject takes nothing of the old one along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import Final

from raglan.terms import identifiers, is_identifier, is_stop_word, stem
from raglan.v1 import generator_pb2

from raglan_gateway.conversation.cues import CUES
from raglan_gateway.understanding.small_talk import reply_to

_QUESTIONS: Final = 6
"""Earlier questions that are read, newest first: a chain of follow-ups refers back further."""
_TURN_CHARS: Final = 2_000
"""Beginning of a turn that is read."""
_LONG_CHARS: Final = 500
"""A longer question names its subject."""
_REPEATED_CHARS: Final = 200
"""Longest question that is repeated whole; of a longer one the words are."""
_CARRIED: Final = 12
"""Most words that are carried over."""
_FROM_ANSWER: Final = 2
"""Most identifiers that are carried over from an answer."""
_FRAGMENT: Final = 4
"""Most words of a subject in a question that goes on with the one before."""
_PHRASE: Final = 4
"""Most words of a question that is a phrase with a preposition, as "on Windows?"."""
_NOUNS_BEFORE: Final = 2
"""Words of a subject before a pronoun: with so many, it may refer to one of them."""
_DETERMINED: Final = 3
"""Most words of a subject in a question where a word such as `that` is taken for a pronoun."""

_WORD: Final = re.compile(r"[^\s?!,;:()\"“”«»¿¡]+")
_BOUNDARY: Final = re.compile(r"[,;:.!?](?=\s)|\s[-\u2013\u2014]\s")
_ADDRESS: Final = re.compile(r"://|^www\.")
_EDGES: Final = ".'`*_…"


def standalone_question(question: str, history: Sequence[generator_pb2.Turn]) -> str:
    """Return `question` so that it can be understood without `history`.

    Args:
        question: what was asked now.
        history: turns before it, oldest first.

    Returns:
        `question` itself where it refers to no earlier turn.
    """
    exchanges = _exchanges(history) if len(question) <= _LONG_CHARS else []
    if not exchanges:
        return question
    earlier, answer = exchanges[0]
    for asked, answered in exchanges[1:]:
        earlier, answer = _resolve(asked, earlier, answer), answered
    return _resolve(question, earlier, answer)


def _exchanges(history: Sequence[generator_pb2.Turn]) -> list[tuple[str, str]]:
    """The last questions, oldest first, each with its answer, which may be empty.

    Small talk is none of them: "thanks!" has no subject that a follow-up could mean.
    """
    found: list[tuple[str, str]] = []
    answer = ""
    for turn in reversed(history):
        text = " ".join(turn.text[:_TURN_CHARS].split())
        if turn.role == generator_pb2.ROLE_ASSISTANT:
            answer = text
        elif text and not reply_to(text):
            found.append((text, answer))
            answer = ""
            if len(found) == _QUESTIONS:
                break
    return found[::-1]


def _resolve(question: str, earlier: str, answer: str) -> str:
    """One question, made stand-alone by the stand-alone question and the answer before it."""
    line = " ".join(question.split())
    language = _language(f"{line} {earlier}")
    cues = CUES[language]
    rest = cues.continuation.sub("", line, count=1) if cues.continuation.match(line) else ""
    first = _bare(line.split(maxsplit=1)[0]) if line else ""
    subject = _subject(line, language)
    is_phrase = first in cues.prepositions and len(_words(line)) <= _PHRASE
    if (rest or is_phrase) and len(subject) <= _FRAGMENT:
        if not (_words(rest) and _refers_back(rest, language)):
            return _continued(rest or line, earlier, language)
    elif not _refers_back(line, language) and not _names_nothing(line, subject):
        return question
    carried = _carried(line, earlier, answer, language)
    return f"{line.rstrip(' ?.!')} ({', '.join(carried)})?" if carried else question


def _language(text: str) -> str:
    """The language of `CUES` with the most function words in `text`; English where none has any."""
    words = [_bare(word) for word in _words(text)]
    return max(CUES, key=lambda code: sum(is_stop_word(word, code) for word in words))


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _bare(word: str) -> str:
    return word.strip(_EDGES).casefold()


def _is_subject(word: str, language: str) -> bool:
    """Return whether `word` says what a text is about."""
    bare, cues = _bare(word), CUES[language]
    return (
        any(character.isalnum() for character in bare)
        and not is_stop_word(bare, language)
        and bare not in cues.general
        and bare not in cues.pronouns
        and bare not in cues.final
        and bare not in cues.prepositions
        and not all(is_stop_word(part, language) for part in bare.split("'"))
    )


def _subject(text: str, language: str) -> list[str]:
    return [word for word in _words(text) if _is_subject(word, language)]


def _names_nothing(line: str, subject: Sequence[str]) -> bool:
    """Return whether a question is too poor to be found by: "why?", "what is the default?"."""
    if not subject:
        return True
    return len(subject) == 1 and not _is_name(subject[0], line)


def _is_name(word: str, line: str) -> bool:
    """Return whether `word` names one thing: an identifier, a number, or a capital inside."""
    bare = word.strip(_EDGES)
    if is_identifier(bare) or any(character.isdigit() for character in bare):
        return True
    return bare[:1].isupper() and not line.startswith(word)


def _refers_back(line: str, language: str) -> bool:
    """Return whether a pronoun of `line` has its noun in an earlier turn."""
    cues = CUES[language]
    text = cues.expletive.sub(" ", line)
    words = list(_WORD.finditer(text))
    if words and _bare(words[-1].group()) in cues.final and len(_subject(text, language)) <= 2:
        return True
    few = len(_subject(text, language)) <= _DETERMINED
    before = 0
    for position, match in enumerate(words):
        bare = _bare(match.group()).partition("'")[0]
        if bare in cues.pronouns and not _has_antecedent(text, match.start(), before):
            following = words[position + 1].group() if position + 1 < len(words) else ""
            opens = bare in cues.determiners and bool(following)
            if not opens or few:
                return True
        before += _is_subject(match.group(), language)
    return False


def _has_antecedent(text: str, at: int, before: int) -> bool:
    """Return whether the `before` words of a subject may name what the pronoun at `at` means."""
    if before >= _NOUNS_BEFORE:
        return True
    return before > 0 and _BOUNDARY.search(text, 0, at) is not None


def _continued(fragment: str, earlier: str, language: str) -> str:
    """The earlier question, with `fragment` in the place of what it varies, or behind it."""
    fragment = fragment.rstrip(" ?.!")
    stated = earlier.rstrip(" ?.!")
    if len(stated) > _REPEATED_CHARS:
        return f"{fragment} ({', '.join(_distinct(_subject(stated, language)))})?"
    preposition = _bare(fragment.split(maxsplit=1)[0]) if fragment else ""
    if preposition not in CUES[language].prepositions:
        return f"{stated}, {fragment}?"
    varied = _last_phrase(stated, preposition, language)
    return f"{varied} {fragment}?"


def _last_phrase(stated: str, preposition: str, language: str) -> str:
    """`stated` without its last phrase, if that begins with `preposition`."""
    for match in reversed(list(_WORD.finditer(stated))):
        bare = _bare(match.group())
        if bare == preposition:
            return stated[: match.start()].rstrip()
        if bare in CUES[language].prepositions:
            break
    return stated


def _carried(line: str, earlier: str, answer: str, language: str) -> list[str]:
    """Phrases for the subject of the earlier question, and names that its answer gave."""
    known = {stem(_bare(word), language) for word in _words(line)}
    words = _words(earlier)
    phrases = [
        " ".join(word.strip(_EDGES) for word in run)
        for is_subject, run in groupby(words, key=lambda word: _is_subject(word, language))
        if is_subject
    ]
    fresh = [
        phrase
        for phrase in _distinct(phrases)
        if any(stem(_bare(word), language) not in known for word in phrase.split())
    ]
    said = " ".join((line, earlier)).casefold()
    names = (
        name
        for name in identifiers(answer)
        if name.casefold() not in said and not _ADDRESS.search(name)
    )
    return [*islice(fresh, _CARRIED), *islice(names, _FROM_ANSWER)]


def _distinct(phrases: Iterable[str]) -> list[str]:
    return list(islice(dict.fromkeys(phrases), _CARRIED))
