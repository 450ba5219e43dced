"""Questions with passages for the generator, as long as a retriever's are."""

from __future__ import annotations

import random

from generator_servers import Asked
from texts import Texts

_PASSAGES = 3
_CHARS = (300, 900)
_QUESTIONS = 2_000
_BODIES = 6_000


class Questions:
    """Random questions with random passages: what they answer is of no matter to a random model.

    Passages come again in other company, so that a prefix cache serves the instructions and little
    else.
    """

    def __init__(self, seed: int = 0) -> None:
        texts = Texts(seed)
        self._random = random.Random(seed)
        self._questions = texts.questions(_QUESTIONS)
        shortest, longest = _CHARS
        self._bodies = [
            body for body in texts.passages(_BODIES) if shortest <= len(body) <= longest
        ]

    def some(self, count: int, max_tokens: int, *, first_ms: int = 0) -> list[Asked]:
        """`count` of them, to be answered in `max_tokens`."""
        return [
            Asked(
                self._random.choice(self._questions),
                tuple(self._random.sample(self._bodies, _PASSAGES)),
                max_tokens,
                first_ms,
            )
            for _ in range(count)
        ]
