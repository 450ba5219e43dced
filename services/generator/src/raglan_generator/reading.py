"""One answer of a language model as it comes: reasoning, text, citations, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from raglan.errors import Unavailable

from raglan_generator.citing import Citer, groundedness
from raglan_generator.generation import (
    Citation,
    Delta,
    Event,
    Finished,
    FinishReason,
    Request,
    Restart,
    Support,
    Usage,
)
from raglan_generator.generation import Thinking as ThinkingEvent
from raglan_generator.language_model import End, Piece, Prompt, Text, Thinking
from raglan_generator.links import LinkFilter
from raglan_generator.thinking import Revoked, ThinkingParser

_WORD: Final = re.compile(r"[^\W_]")


class AnswerReader:
    """From the model's pieces to events; passages are numbered by the prompt, then by the request.

    Text is held back until it has a letter or a digit besides its markers: an answer without one is
    an error, and a replacement has shown nothing yet.
    """

    def __init__(
        self,
        request: Request,
        prompt: Prompt,
        *,
        opens_thinking: bool = False,
        max_thinking_chars: int = 65_536,
    ) -> None:
        self._request = request
        self._prompt = prompt
        self._is_document = bool(request.json_schema)
        self._parser = ThinkingParser(is_open=opens_thinking)
        self._max_thinking_chars = max_thinking_chars
        self._thinking_chars = 0
        self._end: End | None = None
        self._words = 0
        self._begin()

    @property
    def closed_unopened(self) -> bool:
        """Return whether the answer closed a reasoning block that the prompt must have opened."""
        return self._parser.closed_unopened

    def feed(self, piece: Piece | End) -> Iterator[Event]:
        """The events that `piece` makes certain.

        Raises:
            Unavailable: the model has reasoned for longer than it may.
        """
        match piece:
            case Thinking(text):
                yield from self._think(text)
            case Text(text):
                self._words += len(text.split())
                for part in self._parser.feed(text):
                    yield from self._part(part)
            case End(reason):
                self._end = piece
                for part in self._parser.flush(cut=reason is FinishReason.LENGTH):
                    yield from self._part(part)
                yield from self._text(self._links.flush())
                yield from self._shown(self._citer.flush())

    def finished(self, answerable: Support, model: str, spent_ns: int) -> Finished:
        """The last event.

        Raises:
            Unavailable: there was no answer.
        """
        end = self._end
        if end is None:
            raise Unavailable("The model's stream closed before the end of the answer.")
        if not self._has_words:
            raise self._nothing(end)
        return Finished(
            reason=FinishReason.ABSTAINED if self._citer.abstained else end.reason,
            usage=end.usage or Usage(_words(self._prompt), self._words),
            support=self._support(answerable),
            model=model,
            dropped=self._prompt.dropped,
            queue_ns=end.queue_ns,
            compute_ns=max(0, spent_ns - end.queue_ns),
        )

    def _begin(self) -> None:
        numbered = self._prompt.numbered
        passages = [self._request.passages[index] for index in numbered]
        self._citer = Citer(passages)
        turns = (turn.text for turn in self._request.history)
        self._links = LinkFilter(
            [*(passage.text for passage in passages), self._request.question, *turns]
        )
        self._held: list[Event] = []
        self._has_words = False

    def _part(self, part: Text | Thinking | Revoked) -> Iterator[Event]:
        match part:
            case Thinking(text):
                yield from self._think(text)
            case Revoked():
                shown = self._has_words
                self._begin()
                if shown:
                    yield Restart()
            case Text(text):
                yield from self._text(self._links.feed(text))

    def _text(self, text: str) -> Iterator[Event]:
        if self._is_document:
            # Brackets in a JSON document are arrays, not citation markers.
            yield from self._shown([Delta(text)] if text else [])
        else:
            yield from self._shown(self._citer.feed(text))

    def _think(self, text: str) -> Iterator[Event]:
        self._thinking_chars += len(text)
        if self._thinking_chars > self._max_thinking_chars:
            raise Unavailable(
                f"The model was still reasoning after {self._max_thinking_chars} characters "
                "(RAGLAN_GENERATOR_MAX_THINKING_CHARS).",
                is_final=True,
            )
        yield ThinkingEvent(text)

    def _shown(self, events: Iterator[Delta | Citation] | list[Delta]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Citation):
                index = self._prompt.numbered[event.passage_index]
                event = replace(event, passage_index=index)
            elif not self._has_words:
                self._has_words = self._is_document or bool(
                    _WORD.search(re.sub(r"\[\d+\]", "", event.text))
                )
            self._held.append(event)
            if self._has_words:
                yield from self._held
                self._held.clear()

    def _nothing(self, end: End) -> Unavailable:
        if end.reason is FinishReason.CONTENT_FILTER:
            why = "The LLM server withheld the answer (content_filter)."
        elif end.reason is FinishReason.LENGTH and self._thinking_chars:
            why = "The model reasoned up to max_tokens and wrote no answer; allow it more."
        else:
            why = "The model ended its answer without a word."
        return Unavailable(why, is_final=True)

    def _support(self, answerable: Support) -> Support:
        claims = self._citer.claims()
        # The model has read the passages; what was judged before has not.
        said = 0.0 if self._citer.abstained else answerable.confidence
        return replace(
            answerable, confidence=said, groundedness=groundedness(claims), claims=claims
        )


def _words(prompt: Prompt) -> int:
    return sum(len(message["content"].split()) for message in prompt.messages)
