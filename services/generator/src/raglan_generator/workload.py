"""Workload estimate: running answers, their pace, and the start of a new one.

Pure bookkeeping of timed events, so that a test can replay a day in a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raglan.scheduling import LatencyModel

_FORGET_S: Final = 20.0
"""Busy seconds after which what was measured counts 1/e."""

_PRIOR: Final = {"seconds_per_token": 1 / 50_000, "overhead_s": 0.01}
"""Of a fast device: nothing is refused before slowness was seen."""

_PRIOR_ANSWER_TOKENS: Final = 128.0
_FORGET_ANSWERS: Final = 0.95


class Work:
    """One answer in the making."""

    def __init__(self, prompt_tokens: int, ahead: int, began: float) -> None:
        self.prompt_tokens = prompt_tokens
        self.ahead = ahead
        """Prompt tokens, its own included, that were to be read when it came."""
        self.began = began
        self.started = False
        self.written = 0


class Workload:
    """Tracks every answer from its beginning to its end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._works: set[Work] = set()
        self._unread = 0
        self._first = LatencyModel(**_PRIOR)
        self._answer_tokens = _PRIOR_ANSWER_TOKENS
        self._tokens = self._busy_s = 0.0
        self._since = clock()

    @property
    def idle(self) -> bool:
        """True while there is no work."""
        return not self._works

    @property
    def answers(self) -> int:
        """Answers in the making, those without a first token included."""
        return len(self._works)

    @property
    def running(self) -> int:
        """Answers that have begun."""
        return sum(work.started for work in self._works)

    @property
    def waiting(self) -> int:
        """Answers without a first token."""
        return len(self._works) - self.running

    def first_token_s(self, prompt_tokens: int) -> float:
        """Seconds until a question that came now would get its first token, by those before it."""
        return self._first.seconds(self._unread + prompt_tokens)

    def backlog_s(self) -> float:
        """Seconds that all tokens still to be read and written will take, at the speed so far."""
        if not self._works or self._tokens <= 0:
            return 0.0
        unwritten = sum(max(0.0, self._answer_tokens - work.written) for work in self._works)
        return (self._unread + unwritten) * self._busy_s / self._tokens

    def begin(self, prompt_tokens: int) -> Work:
        """A question was taken in."""
        self._pass_time()
        self._unread += prompt_tokens
        work = Work(prompt_tokens, self._unread, self._clock())
        self._works.add(work)
        return work

    def wrote(self, work: Work, tokens: int) -> None:
        """More of its answer came; the first time, its prompt has been read."""
        self._pass_time()
        self._tokens += tokens
        work.written += tokens
        if not work.started:
            work.started = True
            self._unread -= work.prompt_tokens
            self._tokens += work.prompt_tokens
            self._first.observe(work.ahead, self._clock() - work.began)

    def end(self, work: Work, *, whole: bool) -> None:
        """It is over; `whole` when the answer came to its end. Once is enough."""
        if work not in self._works:
            return
        self._pass_time()
        self._works.remove(work)
        if whole:
            self._answer_tokens += (1 - _FORGET_ANSWERS) * (work.written - self._answer_tokens)
        if not work.started:
            self._unread -= work.prompt_tokens
            waited = self._clock() - work.began
            # Abandoned in the queue: it would have taken longer still.
            if waited > self._first.seconds(work.ahead):
                self._first.observe(work.ahead, waited)

    def _pass_time(self) -> None:
        now = self._clock()
        if self._works:
            kept = max(0.0, 1 - (now - self._since) / _FORGET_S)
            self._tokens *= kept
            self._busy_s = self._busy_s * kept + now - self._since
        self._since = now
