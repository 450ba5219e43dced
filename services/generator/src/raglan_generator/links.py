"""Links and images of an answer that stand in nothing the model was given are taken out.

A document can tell a model to write an image whose address carries the conversation to a stranger;
a browser that shows the answer would fetch it. An address that a passage, the question or an
earlier turn holds, letter for letter, carries nothing that its author did not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import regex

REMOVED: Final = "(link removed)"

_LONGEST: Final = 2_300
"""Characters of a link that are waited for. A longer address is unknown whatever it is, and a
longer Markdown link is none: both are decided before their ends have come."""

_OPENINGS: Final = (
    "](",
    "http:",
    "https:",
    "ftp:",
    "ftps:",
    "file:",
    "mailto:",
    "data:",
    "javascript:",
    "vbscript:",
    "www.",
    "//",
)
_OPENING: Final = re.compile("|".join(map(re.escape, _OPENINGS)), re.IGNORECASE)

_INLINE: Final = regex.compile(
    r"""
    \]\( \s{0,8} <?
    (?P<target> [^\s<>()]{0,2000} (?: \([^\s<>()]{0,200}\) [^\s<>()]{0,2000} )? )
    >? (?: \s{1,8} (?: "[^"]{0,200}" | '[^']{0,200}' | \([^()]{0,200}\) ) )? \s{0,8} \)
    """,
    regex.VERBOSE,
)
"""The second half of a Markdown link or image."""

_END: Final = r"(?:\\/|[^\s<>\"'`)\]}|\\])"
_ABSOLUTE: Final = re.compile(
    rf"""
    (?P<target>
        (?: https? | ftps? | file ) : (?:\\?/){{2}} {_END}*
      | www\. {_END}+
      | (?<![\w:/.]) // (?=[\w-]{{1,63}}\.\w) {_END}*
      | mailto: {_END}+
      | data: \w{{1,20}} / {_END}*
      | (?: javascript | vbscript ) : {_END}+
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REST: Final = re.compile(rf"{_END}*")
_STOP: Final = re.compile(r"[\s<>\"'`)\]}|]")
_SCHEME: Final = re.compile(r"^(?:[a-z]+:)?(?:\\?/){2}", re.IGNORECASE)
_AFTER: Final = r"(?![\w?#&=%-]|\.\w)"
"""Behind a known address: a longer one, which might carry more, does not make it known."""


class LinkFilter:
    """Passes a stream of text on without unknown links; the same for every way to cut the stream.

    A link keeps its text, `[text]`; a bare address becomes `REMOVED`.

    Args:
        sources: texts whose links are known.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._text = ""
        """Undecided."""
        self._before = "  "
        """The last two characters that have been decided."""
        self._is_inside = False
        """True inside an address that was too long to wait for its end."""

    def feed(self, text: str) -> str:
        """Return the text that is decided; what may become a link is held back."""
        self._text += text
        return self._pass(is_last=False)

    def flush(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        return self._pass(is_last=True)

    def _pass(self, *, is_last: bool) -> str:
        # With those before, so that a pattern sees what it follows.
        text, at, passed = self._before + self._text, 2, list[str]()
        if self._is_inside:
            at, self._is_inside = _end(text, at, is_last)
        while not self._is_inside:
            opening = _OPENING.search(text, at)
            end = opening.start() if opening else len(text) - (0 if is_last else _unfinished(text))
            if not opening or not (is_last or _is_complete(text, end)):
                break
            passed.append(text[at:end])
            kept, at = self._decide(text, end, is_last)
            passed.append(kept)
        else:
            end = at
        end = max(at, end)
        passed.append(text[at:end])
        self._text = text[end:]
        self._before = text[end - 2 : end]
        return "".join(passed)

    def _decide(self, text: str, begin: int, is_last: bool) -> tuple[str, int]:
        """Return what stands for the opening at `begin`, and where the text goes on."""
        match = _INLINE.match(text, begin)
        if match and match.end() - begin <= _LONGEST:
            target = match["target"]
            is_kept = target.startswith("#") or self._is_known(target)
            return (match.group() if is_kept else "]"), match.end()
        if found := _ABSOLUTE.match(text, begin):
            target = found["target"]
            if len(target) > _LONGEST:
                end, self._is_inside = _end(text, found.end(), is_last)
            else:
                target = target.rstrip(".,;:!?*_")
                end = begin + len(target)
                if self._is_known(target):
                    return target, end
            is_attribute = text[begin - 2 : begin].rstrip("\"'").endswith("=")
            return ("#" if is_attribute else REMOVED), end
        end = begin + 2
        return text[begin:end], end

    def _is_known(self, target: str) -> bool:
        bare = _SCHEME.sub("", target.replace("\\/", "/")).rstrip("/")
        if not bare:
            return False
        known = re.compile(rf"(?<![\w-]){re.escape(bare)}{_AFTER}")
        return any(known.search(source) for source in self._sources)


def _end(text: str, at: int, is_last: bool) -> tuple[int, bool]:
    """Return the end of the address that `at` is inside of; True if it may go on after `text`."""
    found = _REST.match(text, at)
    end = found.end() if found else at
    return end, not is_last and text[end:] in ("", "\\")


def _is_complete(text: str, begin: int) -> bool:
    """Return whether more text cannot change what the opening at `begin` is."""
    if len(text) - begin > _LONGEST:
        return True
    if text.startswith("](", begin):
        match = _INLINE.match(text, begin, partial=True)
        return match is None or not match.partial
    return _STOP.search(text, begin) is not None


def _unfinished(text: str) -> int:
    """Return how many of the last characters may begin an opening."""
    for size in range(min(len(text) - 2, max(map(len, _OPENINGS))), 0, -1):
        tail = text[-size:].lower()
        if any(opening.startswith(tail) for opening in _OPENINGS):
            return size
    return 0
