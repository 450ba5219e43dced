"""Citation markers in a stream, in the forms that models write, however the stream was cut.

`[3]`, `[1, 2]`, `[1-3]`, `[^1]`, `[[1]]`, `[Source 1]`, `[ID:1]`, `【1†source】` and, where a
sentence ends, `(1)`. What is left alone: fenced and inline code, subscripts (`argv[1]`,
`x[2] = y[0]`), intervals (`[0, 1]`) and numbers that no passage can have (`[2024]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from raglan_generator import subscripts

_CLOSING: Final = {"[": "]", "\u3010": "\u3011", "\uff3b": "\uff3d"}
_SPECIAL: Final = re.compile(r"[\[\u3010\uff3b(`~]")
_MARKER_CHARS: Final = 48
"""Longest content of a marker."""
_CODE_CHARS: Final = 200
"""Longest inline code that is waited for."""
_CONTEXT_CHARS: Final = 128
_LARGEST: Final = 999
_LONGEST_RANGE: Final = 20

_WORDS: Final = (
    "ids?|sources?|docs?|documents?|documentos?|passages?|refs?|references?|chunks?|contexts?"
    "|citations?|quellen?|dokumente?|fuentes?|fontes?|fonti|\u6765\u6e90|\u6587\u6863|\u6bb5\u843d"
    "|\u8d44\u6599|\u51fa\u5178|\u0438\u0441\u0442\u043e\u0447\u043d\u0438\u043a"
)
_LABEL: Final = rf"(?:\^|\#|(?:{_WORDS})[ :\#._-]{{0,3}})"
_NUMBER: Final = r"\d{1,5}"
_ITEM: Final = rf"{_LABEL}?{_NUMBER}(?: ?[-\u2013\u2014] ?{_LABEL}?{_NUMBER})?"
_SEPARATOR: Final = r" ?(?:[,;&\u3001\uff0c\uff1b]|and|und|et|y) ?"
_SUFFIX: Final = r"(?::\d{1,3})?\u2020.{0,40}"
_CONTENT: Final = re.compile(
    rf" ?({_ITEM}(?:{_SEPARATOR}{_ITEM}){{0,9}})({_SUFFIX})? ?", re.IGNORECASE
)
_RANGE: Final = re.compile(
    rf"({_NUMBER})(?: ?[-\u2013\u2014] ?(?:{_LABEL})?({_NUMBER}))?", re.IGNORECASE
)
_LABELLED: Final = re.compile(_LABEL, re.IGNORECASE)
_UNFINISHED: Final = re.compile(r"[\w ^#:.,;&\u2020\u3001\uff0c\uff1b\u2013\u2014-]*")
_UNFINISHED_NUMBERS: Final = re.compile(
    r"(?:[\d ,;\u2013-]*|[a-z]{1,9}[ :#]?\d{0,3})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker of these passages, by number; `space` is the one blank before it, or nothing."""

    numbers: tuple[int, ...]
    space: str = ""


class MarkerParser:
    """Splits a stream of text into text and markers; the same for every way to cut the stream.

    Args:
        passages: how many there are.
        in_source: whether a passage holds a text, letter for letter.
    """

    def __init__(
        self, passages: int = _LARGEST, *, in_source: Callable[[str], bool] = lambda text: False
    ) -> None:
        self._passages = passages
        self._in_source = in_source
        self._text = ""
        """Context that has been passed on, then what is not decided yet."""
        self._at = 0
        """Offset of the first undecided character."""
        self._is_first_line = True
        """True while no line has ended before `_text`."""
        self._fence = ""
        """The marks that have opened the code block that the text is in."""
        self._bracket_end = -1
        """End of the last plain bracket in `_text`."""
        self._bracket_is_marker = False

    def feed(self, text: str) -> list[str | Marker]:
        """Feed `text` and return the decided pieces; a possible marker is held back."""
        self._text += text
        return self._pass(is_last=False)

    def flush(self) -> list[str | Marker]:
        """Release the text that was held back, at the end of the stream."""
        return self._pass(is_last=True)

    def _pass(self, *, is_last: bool) -> list[str | Marker]:
        pieces: list[str | Marker] = []
        start, held = self._at, len(self._text)
        at = start
        while match := _SPECIAL.search(self._text, at):
            begin = match.start()
            decided = self._decide(begin, is_last)
            if decided is None:
                held = begin
                break
            at, numbers = decided
            if numbers:
                space = " " if begin > start and self._text[begin - 1] == " " else ""
                pieces += [self._text[start : begin - len(space)], Marker(numbers, space)]
                start = at
        if not is_last and held > start and self._text[held - 1] == " ":
            held -= 1
        pieces.append(self._text[start:held])
        self._forget(held)
        return [piece for piece in pieces if piece]

    def _forget(self, held: int) -> None:
        """Keep a little of what has been passed on."""
        drop = max(0, held - _CONTEXT_CHARS)
        self._is_first_line = self._is_first_line and "\n" not in self._text[:drop]
        self._text, self._at = self._text[drop:], held - drop
        self._bracket_end -= drop

    def _decide(self, at: int, is_last: bool) -> tuple[int, tuple[int, ...]] | None:
        """Return the next offset and the numbers of a marker at `at`; None while undecided."""
        character = self._text[at]
        if character in "`~":
            return self._decide_code(at, is_last)
        if self._fence:
            return at + 1, ()
        if character == "(":
            return self._decide_round(at, is_last)
        return self._decide_square(at, is_last)

    # --- Code -------------------------------------------------------------------------------------

    def _decide_code(self, at: int, is_last: bool) -> tuple[int, tuple[int, ...]] | None:
        text = self._text
        run = re.compile(rf"{re.escape(text[at])}+").match(text, at)
        assert run is not None
        end, size = run.end(), run.end() - at
        if end == len(text) and not is_last:
            return None
        at_line_start = self._at_line_start(at)
        if self._fence:
            if at_line_start and text[at] == self._fence[0] and size >= len(self._fence):
                self._fence = ""
            return end, ()
        if text[at] == "`" and (closing := self._closing_run(end, size, is_last)) != end:
            return None if closing is None else (closing, ())
        if at_line_start and size >= 3:
            self._fence = run.group()
        return end, ()

    def _closing_run(self, begin: int, size: int, is_last: bool) -> int | None:
        """Return the end of inline code that begins at `begin`; `begin` if it has none."""
        text = self._text
        limit = min(len(text), begin + _CODE_CHARS)
        line_end = text.find("\n", begin, limit)
        stop = line_end if line_end >= 0 else limit
        for run in re.compile("`+").finditer(text, begin, stop):
            if run.end() == len(text) and not is_last:
                return None
            if run.end() - run.start() == size:
                return run.end()
        is_open = line_end < 0 and limit < begin + _CODE_CHARS and not is_last
        return None if is_open else begin

    def _at_line_start(self, at: int) -> bool:
        line = self._text.rfind("\n", 0, at)
        if line < 0 and not self._is_first_line:
            return False
        return not self._text[line + 1 : at].strip()

    # --- Markers ----------------------------------------------------------------------------------

    def _decide_square(self, at: int, is_last: bool) -> tuple[int, tuple[int, ...]] | None:
        text, opening = self._text, self._text[at]
        width = 2 if text.startswith(opening * 2, at) else 1
        end = self._end_of(at + width, _CLOSING[opening], _UNFINISHED, is_last)
        if end is None or end < 0:
            return None if end is None else (at + 1, ())
        if width == 2 and not text.startswith(_CLOSING[opening], end):
            return None if end == len(text) and not is_last else (at + 1, ())
        content = text[at + width : end - 1]
        end += width - 1
        numbers = _numbers(content)
        if not numbers or text[max(0, at - 1) : at] == "\\":
            return at + 1, ()
        if opening == "[" and not _LABELLED.search(content):
            if max(numbers) > _LARGEST:
                return at + 1, ()
            verdict = self._is_subscript(at, end, is_last)
            if verdict is None:
                return None
            self._bracket_end, self._bracket_is_marker = end, not verdict
            return end, () if verdict else numbers
        return end, numbers

    def _is_subscript(self, at: int, end: int, is_last: bool) -> bool | None:
        """Return whether the bracket at `at` belongs to an expression; None while that is open."""
        before = self._text[max(0, at - _CONTEXT_CHARS) : at]
        if before.endswith("]"):
            return not (self._bracket_end == at and self._bracket_is_marker)
        if not subscripts.is_adjacent(before):
            return subscripts.is_operand(before)
        after = self._text[end : end + subscripts.LOOKAHEAD]
        if len(after) < subscripts.LOOKAHEAD and not is_last:
            return None
        return subscripts.is_subscript(before, after, self._in_source)

    def _decide_round(self, at: int, is_last: bool) -> tuple[int, tuple[int, ...]] | None:
        text = self._text
        end = self._end_of(at + 1, ")", _UNFINISHED_NUMBERS, is_last)
        if end is None or end < 0:
            return None if end is None else (at + 1, ())
        content = text[at + 1 : end - 1]
        numbers = _numbers(content)
        if not numbers or not 0 < min(numbers) <= max(numbers) <= self._passages:
            return end, ()
        if end == len(text) and not is_last:
            return None
        is_label = bool(_LABELLED.match(content))
        before = text[max(0, at - _CONTEXT_CHARS) : at]
        is_clear = is_label or subscripts.is_at_sentence_end(before, text[end : end + 1])
        is_enumerator = not is_label and self._at_line_start(at)
        return end, numbers if is_clear and not is_enumerator else ()

    def _end_of(
        self, begin: int, closing: str, unfinished: re.Pattern[str], is_last: bool
    ) -> int | None:
        """Behind the bracket that closes at most `_MARKER_CHARS` on; -1 if none does, or None."""
        limit = begin + _MARKER_CHARS
        for at in range(begin, min(len(self._text), limit)):
            if self._text[at] == closing:
                return at + 1
            if self._text[at] in "\n[(\u3010\uff3b`":
                return -1
        is_open = len(self._text) < limit and not is_last
        return None if is_open and unfinished.fullmatch(self._text, begin) else -1


def _numbers(content: str) -> tuple[int, ...]:
    """The passages that the inside of a bracket names; none if it names none.

    A lone 0 is the marker of a model that counts from there; beside others it is an interval.
    """
    match = _CONTENT.fullmatch(content)
    if match is None:
        return ()
    numbers = [number for pair in _RANGE.finditer(match.group(1)) for number in _range(pair)]
    return tuple(dict.fromkeys(numbers)) if numbers == [0] or 0 not in numbers else ()


def _range(pair: re.Match[str]) -> Iterator[int]:
    first, last = int(pair.group(1)), int(pair.group(2) or pair.group(1))
    if last < first or last - first > _LONGEST_RANGE:
        yield 0
    yield from range(first, min(last, first + _LONGEST_RANGE) + 1)
