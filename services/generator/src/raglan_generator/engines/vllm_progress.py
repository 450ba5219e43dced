"""vLLM at run time: progress, requests in hand and totals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raglan_generator.generation import Load


class Progress:
    """Progress of the engine, from reports of new work and of each step.

    Time counts from the oldest sign that is still owed. An engine without work owes none, so that
    idleness never looks like a stall; one that has work, or has to abort it, does.
    """

    def __init__(self, stalled_after_s: float, clock: Callable[[], float]) -> None:
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._owed_since: float | None = None

    def given(self) -> bool:
        """A request is handed over, or taken back; whether nothing was owed before."""
        if self._owed_since is not None:
            return False
        self._owed_since = self._clock()
        return True

    def refused(self) -> None:
        """The engine never saw what it was given, and nothing else was owed."""
        self._owed_since = None

    def moved(self, *, busy: bool) -> None:
        """A sign of life; `busy` when work is left."""
        self._owed_since = self._clock() if busy else None

    @property
    def stalled(self) -> bool:
        """True if a step is overdue."""
        since = self._owed_since
        return since is not None and self._clock() - since >= self._stalled_after_s


class Counters:
    """The engine's last word on what it holds, and sums over all of its steps."""

    def __init__(self) -> None:
        self._running = self._waiting = 0
        self._kv_use = 0.0
        self._prefix = self._hits = self._drafted = self._accepted = 0

    @property
    def busy(self) -> bool:
        """True while it holds requests."""
        return self._running + self._waiting > 0

    def record(self, stats: Any) -> None:
        """Take in vLLM's `SchedulerStats` of a step."""
        self._running = stats.num_running_reqs
        self._waiting = stats.num_waiting_reqs + stats.num_skipped_waiting_reqs
        self._kv_use = stats.kv_cache_usage
        # Tokens; what preemption makes it read again is counted apart from these.
        self._prefix += stats.prefix_cache_stats.queries
        self._hits += stats.prefix_cache_stats.hits
        if (speculated := stats.spec_decoding_stats) is not None:
            self._drafted += speculated.num_draft_tokens
            self._accepted += speculated.num_accepted_tokens

    def load(self) -> Load:
        """All of it."""
        return Load(
            running=self._running,
            waiting=self._waiting,
            kv_use=self._kv_use,
            prefix_tokens_total=self._prefix,
            prefix_hits_total=self._hits,
            drafted_total=self._drafted,
            accepted_total=self._accepted,
        )
