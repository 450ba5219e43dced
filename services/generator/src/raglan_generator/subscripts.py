"""Decide by the surrounding text whether a number in brackets is a subscript or a citation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

LOOKAHEAD: Final = 4
"""Characters behind a bracket that are looked at."""

_NAME: Final = re.compile(r"[\w$.]+\Z")
_CALL: Final = re.compile(r"[\w\]]\([^()\n]*\)\Z")
_OPERATOR: Final = re.compile(r"[=<][ \t]*\Z")
_OPERATION: Final = re.compile(r"[ \t]{0,2}(?:[-+*/%|&^:]?=|\+\+|--|->)|\.[a-z_]|:\d")

_ARRAYS: Final = frozenset(
    str.split(
        """arg args argv arr array arrays buf buffer cell cells char chars col cols column columns
        data dict elem elems element elements entries env field fields frame idx index input inputs
        item items key keys kwargs line lines list lists map mat matrix name names node nodes nums
        obj object objects out output outputs param params parts path paths ptr queue res result
        results row rows self seq stack str string strings sys table tensor tmp token tokens tuple
        val value values vec vector vectors word words"""
    )
)
"""Names that programs give to what has subscripts."""

_SHORT_WORDS: Final = frozenset(
    str.split(
        """am an as at be by do go he if in is it me my no of on or so to up us we cm gb ha hz kb kg
        km kw ma mb mg ml mm ms pm tb wh an du er es im ja la le ne se un va el en lo no os su te"""
    )
)

_REFERENCES: Final = frozenset(
    str.split(
        """annex answer article chapter class clause column eq equation fig figure footnote formula
        grade group item level line no note number option page part phase point rule section step
        table tier type version abbildung abschnitt absatz artikel formel kapitel punkt schritt
        seite tabelle teil figura paso tabla chapitre etape figure tableau"""
    )
)
"""Words behind which a number in parentheses is a part of the name."""

_NUMBER_WORDS: Final = frozenset(
    str.split(
        """one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty
        forty fifty sixty ninety hundred ein eine eins zwei drei vier acht zehn dreissig uno dos
        tres un deux trois"""
    )
)

_LAST_WORD: Final = re.compile(r"([^\W_]+)[\"'\u201d\u2019*]* ?\Z")
_SENTENCE_END: Final = ".!?\u3002\uff01\uff1f"


def is_adjacent(before: str) -> bool:
    """Return whether a bracket behind `before` touches a name, a call or a number."""
    return bool(before) and (before[-1].isalnum() or before[-1] in "_)$")


def is_operand(before: str) -> bool:
    """Return whether `before` ends in an operator: what follows is a list, as in `x = [1, 2]`."""
    return bool(_OPERATOR.search(before))


def is_subscript(before: str, after: str, in_source: Callable[[str], bool]) -> bool:
    """Return whether a number in brackets between these texts is a subscript of the first.

    Args:
        before: ends where the bracket begins.
        after: the next `LOOKAHEAD` characters, fewer at the end of the text.
        in_source: whether a passage holds a text, letter for letter.
    """
    if _OPERATION.match(after):
        return True
    if before.endswith(")"):
        return bool(_CALL.search(before))
    match = _NAME.search(before)
    name = match.group().lstrip(".") if match else ""
    if not name.isascii() or name.replace(".", "").isdigit():
        return False
    return _looks_like_code(name) or in_source(f"{name}[")


def _looks_like_code(name: str) -> bool:
    if not name or "_" in name or "$" in name or "." in name:
        return bool(name)
    if len(name) == 1 or (len(name) == 2 and name.islower() and name not in _SHORT_WORDS):
        return True
    has_case_inside = name[0].islower() and not name.islower()
    has_digit = name[0].islower() and any(character.isdigit() for character in name)
    return has_case_inside or has_digit or name.lower() in _ARRAYS


def is_at_sentence_end(before: str, after: str) -> bool:
    """Return whether a number in parentheses between these texts closes a sentence.

    Args:
        before: ends where the parenthesis begins.
        after: the next character; empty at the end of the text.
    """
    ends_line = after in ("", "\n")
    if before.rstrip(" ")[-1:] in tuple(_SENTENCE_END):
        return ends_line
    if not before.endswith(" ") or not (ends_line or after in _SENTENCE_END):
        return False
    word = _LAST_WORD.search(before)
    if word is None:
        return False
    last = word.group(1).casefold()
    return not last.isdigit() and last not in _REFERENCES and last not in _NUMBER_WORDS
