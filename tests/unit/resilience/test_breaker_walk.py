"""Random walks of 120,000 steps through the breaker, beside a model that keeps everything.

The model is written from the rules, not from the code: a list of what happened since the last
change of state, searched anew at each step. The seed is in the test's name.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from raglan.resilience import BreakerOptions, CircuitBreaker, Permit, State

WALKS, STEPS = 12, 10_000


@dataclass
class Given:
    """A permit and what the model knows of it."""

    permit: Permit
    era: int
    at: float
    probe: bool


@dataclass
class Model:
    """What the breaker must be, by the rules."""

    options: BreakerOptions
    now: float = 1000.0
    state: State = State.CLOSED
    since: float = 0.0
    era: int = 0
    open_s: float = 0.0
    outcomes: list[tuple[float, bool]] = field(default_factory=list)
    """Since the era began."""
    probes: list[Given] = field(default_factory=list)
    """Of this era, without an outcome."""

    def become(self, state: State) -> None:
        if state is State.CLOSED:
            self.open_s = 0.0
        self.state, self.since = state, self.now
        self.era += 1
        self.outcomes, self.probes = [], []

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def settle(self) -> None:
        if self.state is State.OPEN and self.now - self.since >= self.open_s:
            self.become(State.HALF_OPEN)

    def window(self) -> list[bool]:
        """Outcomes in the window: this tenth of it and the nine before."""
        tenth = self.options.window_s / 10
        first = self.now // tenth - 9
        return [ok for at, ok in self.outcomes if at // tenth >= first]

    def allows(self) -> bool:
        if self.state is not State.HALF_OPEN:
            return self.state is State.CLOSED
        if len(self.probes) < self.options.probes:
            return True
        if self.now - max(probe.at for probe in self.probes) < self.options.max_open_s:
            return False
        self.become(State.HALF_OPEN)
        return True

    def outcome(self, given: Given, ok: bool | None) -> None:
        if given.era != self.era:
            return
        if given in self.probes:
            self.probes.remove(given)
        if ok is None:
            return
        self.outcomes.append((self.now, ok))
        results = [ok for _, ok in self.outcomes]
        if self.state is State.CLOSED:
            self.open_if_it_must(results, ok)
        elif self.state is State.HALF_OPEN and not ok:
            longer = min(2 * self.open_s, self.options.max_open_s)
            self.become(State.OPEN)
            self.open_s = longer
        elif len(results) >= self.options.probes and all(results[-self.options.probes :]):
            self.become(State.CLOSED)

    def open_if_it_must(self, results: list[bool], ok: bool) -> None:
        window = self.window()
        often = len(window) >= self.options.min_calls and window.count(
            False
        ) >= self.options.failure_rate * len(window)
        row = self.options.consecutive
        if not ok and (often or (len(results) >= row and not any(results[-row:]))):
            self.become(State.OPEN)
            self.open_s = self.options.open_s


def some_options(dice: random.Random) -> BreakerOptions:
    open_s = dice.choice([1.0, 2.0, 5.0])
    return BreakerOptions(
        window_s=dice.choice([2.0, 10.0]),
        min_calls=dice.choice([3, 8, 20]),
        failure_rate=dice.choice([0.25, 0.5, 0.8]),
        consecutive=dice.choice([2, 5, 50]),
        open_s=open_s,
        max_open_s=open_s * dice.choice([1, 3, 12]),
        probes=dice.choice([1, 3]),
    )


class Walk:
    """One breaker and its model, going the same way."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.model = Model(some_options(self.dice))
        self.changes: list[State] = []
        self.breaker = CircuitBreaker(
            self.model.options, clock=lambda: self.model.now, on_change=self.changes.append
        )
        self.given: list[Given] = []
        self.ill = 0.1
        self.happened: Counter[str] = Counter()

    def step(self) -> None:
        dice = self.dice
        if dice.random() < 0.002:
            self.ill = dice.choice([0.0, 0.1, 0.4, 0.7, 1.0])
        if dice.random() < 0.5:
            longest = dice.choice([0.01, 0.3, 0.3, 2 * self.model.options.open_s])
            self.model.wait(dice.uniform(0, longest))
        action = dice.choices([self.ask, self.bypass, self.report, self.lose], [40, 4, 50, 1])[0]
        was = self.model.state
        action()
        self.compare(was)

    def ask(self) -> None:
        allowed = self.model.allows()
        permit = self.breaker.permit()
        assert (permit is not None) == allowed
        if permit is not None:
            self.keep(permit, probe=self.model.state is State.HALF_OPEN)

    def bypass(self) -> None:
        self.keep(self.breaker.bypass(), probe=False)

    def keep(self, permit: Permit, *, probe: bool) -> None:
        given = Given(permit, self.model.era, self.model.now, probe)
        self.given.append(given)
        if probe:
            self.model.probes.append(given)
            assert len(self.model.probes) <= self.model.options.probes

    def report(self) -> None:
        if not self.given:
            return
        given = self.given.pop(self.dice.randrange(len(self.given)))
        stale = given.era != self.model.era
        ok = None if self.dice.random() < 0.1 else self.dice.random() >= self.ill
        before = self.inside()
        self.model.outcome(given, ok)
        for _ in range(self.dice.choice([1, 1, 2])):
            {True: given.permit.succeeded, False: given.permit.failed, None: given.permit.released}[
                ok
            ]()
        if stale:
            assert self.inside() == before, "a stale permit changed the breaker"
            self.happened["stale"] += 1

    def lose(self) -> None:
        """A permit that never comes back."""
        if self.given:
            self.given.pop(self.dice.randrange(len(self.given)))
            self.happened["lost"] += 1

    def inside(self) -> dict[str, object]:
        """All there is inside the breaker, its window at this time."""
        breaker = self.breaker
        seen = {"state": breaker.state, "failures": breaker.failures, "rate": breaker.failure_rate}
        return seen | {k: v for k, v in vars(breaker).items() if isinstance(v, int | float | str)}

    def compare(self, was: State) -> None:
        model, breaker = self.model, self.breaker
        assert breaker.state is model.state
        if model.state is State.CLOSED:
            window = model.window()
            assert breaker.failures == window.count(False)
            assert breaker.failure_rate == window.count(False) / max(1, len(window))
        wait_s = model.open_s - (model.now - model.since) if model.state is State.OPEN else 0
        assert breaker.retry_after_s() == pytest.approx(max(0.0, wait_s), abs=1e-6)
        if model.state is not was:
            self.happened[f"{was} to {model.state}"] += 1
            assert self.changes[-1] is model.state


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(WALKS))
def test_the_breaker_goes_where_the_rules_say(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
    for what in ("closed to open", "half_open to open", "half_open to closed", "stale", "lost"):
        assert walk.happened[what], f"the walk never saw {what}: {walk.happened}"
