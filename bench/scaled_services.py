"""Simulated replicas of the reranker and of the generator, with the backlog that each exports.

They are advanced lazily: a replica knows what it has done up to the last time that it was asked.
The generator's estimates, and so its backlog and its refusals, are those of the service itself.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from raglan_generator.workload import Work, Workload


class Ask(NamedTuple):
    """One request of the load."""

    at_s: float
    prompt_tokens: int
    answer_tokens: int


@dataclass
class Outcome:
    """Counts of what happened to the requests."""

    asked: int = 0
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)
    """Of each request that was admitted: from its arrival to its first token, or its scores."""


class Replica(Protocol):
    """One process of a service, ready to serve."""

    @property
    def in_flight(self) -> int:
        """Requests that are waited for or served."""

    def advance(self, now: float) -> None:
        """Do all that is done by `now`."""

    def offer(self, ask: Ask, outcome: Outcome) -> bool:
        """Take in a request, or refuse it. Its arrival is the present."""

    def backlog_s(self) -> float:
        """What the service exports as `raglan_backlog_seconds`."""


# --- Reranker -------------------------------------------------------------------------------------

SCORING_S: Final = 0.118
"""CPU seconds a question: 1,200 tokens, gap 3, passages not met before (bench/results of
`make bench-reranker`, SciFact: 117.8 ms)."""

RERANK_BUDGET_S: Final = 1.0
"""Of the gateway: RAGLAN_GATEWAY_RERANK_BUDGET_MS."""


class RerankerReplica:
    """One core, first come, first served."""

    def __init__(self, ready_at: float) -> None:
        self._now = ready_at
        self._free_at = ready_at
        self._ends: deque[float] = deque()

    @property
    def in_flight(self) -> int:
        return len(self._ends)

    def advance(self, now: float) -> None:
        self._now = now
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()

    def offer(self, ask: Ask, outcome: Outcome) -> bool:
        # Questions differ in the length of their passages: from half to one and a half times.
        seconds = SCORING_S * (0.5 + (ask.prompt_tokens % 101) / 100)
        end = max(self._free_at, self._now) + seconds
        if end - self._now > RERANK_BUDGET_S:
            return False
        self._free_at = end
        self._ends.append(end)
        outcome.waits_s.append(end - self._now)
        return True

    def backlog_s(self) -> float:
        return max(0.0, self._free_at - self._now)


# --- Generator ------------------------------------------------------------------------------------

STREAMS: Final = 32
"""Answers that one GPU writes at a time."""

STEP_S: Final = (0.015, 0.00056)
"""A step of n answers takes a + b * n seconds: 33 ms with 32 (published for Llama-3.1-8B on an
accelerator with 256 users on eight, OPEA ChatQnA 1.3); 15 ms alone is assumed."""

PROMPT_TOKENS_A_STEP: Final = 300
"""Prompt tokens that cost as much as a step; with 32 answers 9,000 tokens a second."""

FIRST_TOKEN_BUDGET_S: Final = 10.0
"""Of the gateway: RAGLAN_GATEWAY_FIRST_TOKEN_BUDGET_MS."""


COUNTED_S: Final = 1.0
"""Longest time between two counts of the tokens that are written."""


class _Answer:
    __slots__ = ("ask", "first_step", "work")

    def __init__(self, ask: Ask, work: Work) -> None:
        self.ask = ask
        self.work = work
        self.first_step = 0.0


class GeneratorReplica:
    """Continuous batching: all answers advance together, one token a step."""

    def __init__(self, ready_at: float) -> None:
        self._now = ready_at
        self._steps = 0.0
        self._order = 0
        self._events: list[tuple[float, int, bool, _Answer]] = []
        """By step: (step, order, whether it is the last one, answer)."""
        self._running: set[_Answer] = set()
        self._waiting: deque[_Answer] = deque()
        self._workload = Workload(lambda: self._now)
        self._outcome = Outcome()

    @property
    def in_flight(self) -> int:
        return len(self._running) + len(self._waiting)

    def advance(self, now: float) -> None:
        """Do all that is done by `now`.

        Tokens are counted every second, because the service's estimate forgets.
        """
        while self._events and now - self._now > COUNTED_S:
            self._advance(self._now + COUNTED_S)
            self._count_tokens()
        self._advance(now)

    def _advance(self, now: float) -> None:
        while self._events:
            step_s = STEP_S[0] + STEP_S[1] * len(self._running)
            at = self._now + (self._events[0][0] - self._steps) * step_s
            if at > now:
                self._steps += (now - self._now) / step_s
                break
            step, _, is_last, answer = heapq.heappop(self._events)
            self._now, self._steps = at, step
            self._last(answer) if is_last else self._first(answer)
        self._now = now

    def offer(self, ask: Ask, outcome: Outcome) -> bool:
        self._outcome = outcome
        late = self._workload.first_token_s(ask.prompt_tokens) > FIRST_TOKEN_BUDGET_S
        if late and not self._workload.idle:
            return False
        answer = _Answer(ask, self._workload.begin(ask.prompt_tokens))
        if len(self._running) < STREAMS:
            self._begin(answer)
        else:
            self._waiting.append(answer)
        return True

    def backlog_s(self) -> float:
        self._count_tokens()
        return self._workload.backlog_s()

    def _count_tokens(self) -> None:
        for answer in self._running:
            if answer.work.started:
                due = min(int(self._steps - answer.first_step) + 1, answer.ask.answer_tokens)
                if due > answer.work.written:
                    self._workload.wrote(answer.work, due - answer.work.written)

    def _begin(self, answer: _Answer) -> None:
        self._running.add(answer)
        reading = answer.ask.prompt_tokens / PROMPT_TOKENS_A_STEP
        answer.first_step = self._steps + max(1.0, reading)
        self._at(answer.first_step, False, answer)
        self._at(answer.first_step + answer.ask.answer_tokens, True, answer)

    def _at(self, step: float, is_last: bool, answer: _Answer) -> None:
        self._order += 1
        heapq.heappush(self._events, (step, self._order, is_last, answer))

    def _first(self, answer: _Answer) -> None:
        self._outcome.waits_s.append(self._now - answer.ask.at_s)
        self._workload.wrote(answer.work, 1)

    def _last(self, answer: _Answer) -> None:
        left = answer.ask.answer_tokens - answer.work.written
        if left > 0:
            self._workload.wrote(answer.work, left)
        self._workload.end(answer.work, whole=True)
        self._running.remove(answer)
        if self._waiting:
            self._begin(self._waiting.popleft())
