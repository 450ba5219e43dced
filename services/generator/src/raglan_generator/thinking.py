"""Separation of the reasoning in a model's text from its answer, however it is cut.

Most models mark it by a pair of tags. Some chat templates open the block themselves, so that the
text has the closing tag alone: then everything before it was reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from raglan_generator.language_model import Text, Thinking

_PAIRS: Final = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)
_CLOSED_BY: Final = {opening.casefold(): closing for opening, closing in _PAIRS}
_TAG: Final = re.compile(
    "|".join(re.escape(tag) for pair in _PAIRS for tag in sorted(pair, key=len, reverse=True)),
    re.IGNORECASE,
)
_LONGEST: Final = max(len(tag) for pair in _PAIRS for tag in pair)
_BEGINNINGS: Final = frozenset(
    tag[:size].casefold() for pair in _PAIRS for tag in pair for size in range(1, len(tag) + 1)
)
OPENS_AT_END: Final = re.compile(
    "(?:" + "|".join(re.escape(opening) for opening, _ in _PAIRS) + r")\s*\Z", re.IGNORECASE
)
"""Pattern of a rendered prompt that ends inside a reasoning block."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """All text so far was reasoning: the block had been opened in the prompt."""


class ThinkingParser:
    """Splits one answer's stream; the same for every way to cut it.

    Tags between backticks are text. A block that begins behind text of the answer and is never
    closed was a word about tags, not reasoning: it is given back as text at the end.

    Args:
        is_open: whether the text begins inside of a reasoning block.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self._closing = _PAIRS[0][1] if is_open else ""
        """Of the block that the text is in; empty outside of one."""
        self._assumed = is_open
        self._held = ""
        self._before = ""
        """The last character of the text so far."""
        self._has_text = False
        self._inside: list[str] = []
        """The open block, its tag included; kept while it may have to be given back."""
        self.closed_unopened = False
        """True if a block was closed that the text had not opened."""

    def feed(self, text: str) -> Iterator[Text | Thinking | Revoked]:
        """The pieces that `text`, the next of the model, makes certain."""
        text = self._held + text
        size = _held_size(text)
        self._held = text[len(text) - size :]
        yield from self._read(text[: len(text) - size], followed_by=self._held[:1])

    def flush(self, *, cut: bool = False) -> Iterator[Text | Thinking | Revoked]:
        """Release what was held back at the end of the stream, which the length limit `cut`."""
        held, self._held = self._held, ""
        yield from self._read(held, followed_by="")
        if self._closing and self._inside and not cut:
            # Opened by a mention of a tag, or by a wrong assumption.
            text, self._inside, self._closing = "".join(self._inside), [], ""
            yield Text(text)

    def _read(self, text: str, *, followed_by: str) -> Iterator[Text | Thinking | Revoked]:
        at = 0
        for match in _TAG.finditer(text):
            yield from self._pass(text[at : match.start()])
            after = text[match.end() : match.end() + 1] or followed_by
            yield from self._tag(match.group(), followed_by=after)
            at = match.end()
        yield from self._pass(text[at:])

    def _pass(self, text: str) -> Iterator[Text | Thinking]:
        if not text:
            return
        self._before = text[-1]
        if self._closing:
            if self._has_text or self._assumed:
                self._inside.append(text)
            yield Thinking(text)
            return
        if not self._has_text:
            text = text.lstrip()
        if text:
            self._has_text = True
            yield Text(text)

    def _tag(self, tag: str, *, followed_by: str) -> Iterator[Text | Thinking | Revoked]:
        opened = _CLOSED_BY.get(tag.casefold())
        if self._closing:
            if opened is None and (self._assumed or tag.casefold() == self._closing.casefold()):
                self._close()
            elif opened is not None and self._assumed and not "".join(self._inside).strip():
                # The prompt had not opened it after all.
                self._closing, self._assumed = opened, False
            else:
                yield from self._pass(tag)
        elif self._before == "`" or followed_by == "`":
            yield from self._pass(tag)
        elif opened is not None:
            self._closing, self._inside = opened, [tag] if self._has_text else []
        else:
            self.closed_unopened = True
            self._has_text, self._before = False, ""
            yield Revoked()

    def _close(self) -> None:
        self.closed_unopened = self.closed_unopened or self._assumed
        self._closing, self._inside, self._assumed = "", [], False
        self._before = ""


def _held_size(text: str) -> int:
    """Count the characters at the end of `text` that may be a tag or its undecided context."""
    for size in range(min(len(text), _LONGEST), 0, -1):
        if text[-size:].casefold() in _BEGINNINGS:
            return size
    return 0
