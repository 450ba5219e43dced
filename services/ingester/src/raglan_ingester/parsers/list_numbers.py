"""The number of a list item in the style of its list."""

from __future__ import annotations

from typing import Final

_ROMAN: Final = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MAX_ROMAN: Final = 3999


def item_number(number: int, style: str) -> str:
    """`number` written in a style of HTML's `<ol type>`: `1`, `a`, `A`, `i` or `I`."""
    if style in ("a", "A") and number > 0:
        text = _letters(number)
    elif style in ("i", "I") and 0 < number <= _MAX_ROMAN:
        text = _roman(number)
    else:
        return str(number)
    return text.upper() if style.isupper() else text


def _letters(number: int) -> str:
    """1 to a, 26 to z, 27 to aa."""
    text = ""
    while number:
        number, place = divmod(number - 1, 26)
        text = chr(ord("a") + place) + text
    return text


def _roman(number: int) -> str:
    text = ""
    for value, letters in _ROMAN:
        count, number = divmod(number, value)
        text += letters * count
    return text
