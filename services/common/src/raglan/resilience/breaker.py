"""A circuit breaker: stops calling what keeps failing, and finds out when it works again.

CLOSED     every call passes. Enough failures in the window, or in a row -> OPEN
OPEN       no call passes. Once the open time is over -> HALF_OPEN
HALF_OPEN  a few calls pass at a time. As many successes -> CLOSED; one failure -> OPEN, for twice
           as long

Every change of state begins a new generation, and a permit counts only in the one it was given in:
what was sent before the breaker opened says nothing about what it is like now.

The pattern is Nygard's (Release It!, 2007). Nothing here waits, and nothing is thread-safe: one
event loop owns a breaker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from raglan.resilience.window import Window


class State(StrEnum):
    """State of a breaker: its decision about the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """Thresholds of a breaker: opening, open time and closing."""

    window_s: float = 10
    """Failures and successes older than this are forgotten."""

    min_calls: int = 20
    """`failure_rate` means nothing below so many outcomes in the window."""

    failure_rate: float = 0.5
    """This share of failures in the window opens it."""

    consecutive: int = 5
    """So many failures without a success between them open it, however few calls there are."""

    open_s: float = 5
    """Time without calls after it opened. Doubles with each probe that fails ..."""

    max_open_s: float = 60
    """... up to this. A probe without an outcome for so long is abandoned."""

    probes: int = 3
    """Calls at a time in half-open, and the successes that close it."""


class Permit:
    """Leave for one call. The first outcome counts, once, while its generation lasts."""

    __slots__ = ("_breaker", "_generation", "_probe")

    def __init__(self, breaker: CircuitBreaker, generation: int, probe: bool) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._generation = generation
        self._probe = probe

    def succeeded(self) -> None:
        """It answered: also with an error that says the endpoint works, like NOT_FOUND."""
        self._report(True)

    def failed(self) -> None:
        """It did not answer, or not in time, or with an error of its own."""
        self._report(False)

    def released(self) -> None:
        """Nothing was learnt: a cancel, a bad request, our own shedding."""
        self._report(None)

    def _report(self, success: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._record(self._generation, self._probe, success)


class CircuitBreaker:
    """Circuit breaker of one endpoint. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        options: BreakerOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State], None] | None = None,
    ) -> None:
        self.options = options or BreakerOptions()
        self._clock = clock
        self._on_change = on_change
        self._state = State.CLOSED
        self._generation = 0
        self._calls = Window(self.options.window_s)
        self._failed = Window(self.options.window_s)
        self._consecutive = 0
        self._open_s = self.options.open_s
        self._opened_at = 0.0
        self._probing = 0
        self._probed_at = 0.0
        self._proven = 0

    # --- Asking -----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Current state: an open breaker becomes half-open when its open time is over."""
        self._settle()
        return self._state

    @property
    def failures(self) -> int:
        """Failures in the window."""
        return self._failed.at_most(self._clock())

    @property
    def failure_rate(self) -> float:
        """Failures by outcomes in the window, 0 without any."""
        now = self._clock()
        return self._failed.at_most(now) / max(1, self._calls.at_most(now))

    def permit(self) -> Permit | None:
        """Leave for a call, whose outcome the caller reports; None while calls are refused."""
        state = self.state
        if state is State.CLOSED:
            return Permit(self, self._generation, False)
        if state is State.OPEN:
            return None
        now = self._clock()
        if self._probing >= self.options.probes:
            if now - self._probed_at < self.options.max_open_s:
                return None
            self._become(State.HALF_OPEN)  # outstanding probes are void
        self._probing += 1
        self._probed_at = now
        return Permit(self, self._generation, True)

    def bypass(self) -> Permit:
        """Leave for a call whatever the state, for when there is nothing better to call.

        While open, a success counts as a probe's, and a failure only ends a row of them.
        """
        self._settle()
        return Permit(self, self._generation, False)

    def retry_after_s(self) -> float:
        """Seconds until the next probe may pass; 0 unless open."""
        if self.state is not State.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._open_s - self._clock())

    # --- Learning ---------------------------------------------------------------------------------

    def _record(self, generation: int, probe: bool, success: bool | None) -> None:
        self._settle()
        if generation != self._generation:
            return
        if probe:
            self._probing -= 1
        if success is None:
            return
        if self._state is State.CLOSED:
            self._count(success)
        elif success:
            self._proven += 1
            if self._proven >= self.options.probes:
                self._become(State.CLOSED)
        elif self._state is State.HALF_OPEN:
            self._open_s = min(2 * self._open_s, self.options.max_open_s)
            self._become(State.OPEN)
        else:
            self._proven = 0

    def _count(self, success: bool) -> None:
        now = self._clock()
        self._calls.add(now)
        if success:
            self._consecutive = 0
            return
        self._failed.add(now)
        self._consecutive += 1
        options = self.options
        calls = self._calls.at_most(now)
        often = calls >= options.min_calls and (
            self._failed.at_most(now) >= options.failure_rate * calls
        )
        if often or self._consecutive >= options.consecutive:
            self._become(State.OPEN)

    def _settle(self) -> None:
        if self._state is State.OPEN and self._clock() - self._opened_at >= self._open_s:
            self._become(State.HALF_OPEN)

    def _become(self, state: State) -> None:
        changed = state is not self._state
        self._state = state
        self._generation += 1
        self._probing = self._proven = self._consecutive = 0
        if state is State.OPEN:
            self._opened_at = self._clock()
        elif state is State.CLOSED:
            self._open_s = self.options.open_s
            self._calls.clear()
            self._failed.clear()
        if changed and self._on_change is not None:
            self._on_change(state)
