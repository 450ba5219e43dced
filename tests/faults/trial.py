"""One row of the fault matrix: a baseline, a fault under load, the repair, and what must hold."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from faults import figures
from faults.bed import SETTLE_S, Bed, Footprint, Load
from faults.open_loop import Options, Record
from report import Row

FULL = os.environ.get("FAULT_MATRIX", "short") == "full"
RECOVERY_S = 15.0
RECOVERED_S = RECOVERY_S if FULL else 60.0
LONGEST_S = 90.0 if FULL else 200.0
"""What is spent on waiting for recovery, and for enough requests."""
LEAK = 1.05


@dataclass(frozen=True)
class Form:
    """How long, how much, and whether times are judged.

    The full form has the machine for itself and judges how quickly all is well again. The short
    one, a part of `make test`, runs on any machine beside anything: it judges what becomes of each
    request and that all is well again, not how quickly.
    """

    requests: int
    """A row goes on until so many were sent."""
    baseline_s: float
    fault_s: float
    window_s: float
    """In which the latency must be back where it was."""
    capacity_s: float
    warm_up_s: float
    timeout_s: float
    """What a request is given by its client."""
    grace_s: float
    """What a request may take past that."""
    slowdown: float
    """How much slower than the baseline counts as well."""
    workers: int = 0
    """Clients that each wait for an answer before they ask again; 0: arrivals at half the peak."""

    def load(self, options: Options) -> Options:
        """The usual load in this form."""
        if self.workers:
            options = replace(options, rate=0, workers=self.workers)
        return replace(options, timeout_s=self.timeout_s, grace_s=self.grace_s)


FORM = (
    Form(1_000, 8.0, 8.0, 4.0, 4.0, 20.0, timeout_s=5.0, grace_s=0.25, slowdown=figures.SLOWDOWN)
    if FULL
    else Form(
        150, 2.0, 2.0, 1.5, 1.5, 3.0, timeout_s=20.0, grace_s=5.0, slowdown=math.inf, workers=4
    )
)


@dataclass
class Seen:
    """A load and what it met. Times are readings of the monotonic clock."""

    load: Load
    began: float
    baseline_until: float = 0.0
    repaired_at: float = 0.0
    records: list[Record] = field(default_factory=list)
    attempts: dict[str, dict[str, float]] = field(default_factory=dict)
    """service -> kind ("first", "retry", "hedge") -> how many since the baseline ended."""

    def baseline(self) -> list[Record]:
        """Before the fault: without the first moments, which open connections, and without the
        last, whose requests the fault still finds under way."""
        return figures.due(self.records, self.began + 0.5, self.baseline_until - 0.5)

    def since(self, start: float, end: float = math.inf) -> list[Record]:
        """Those due from `start` on."""
        return figures.due(self.records, start, end)

    def disturbed(self) -> list[Record]:
        """From the fault to its repair."""
        return self.since(self.baseline_until, self.repaired_at)

    def beyond_budget(self) -> float:
        """Retries and hedges of a service above a fifth of its calls and three a second."""
        lasted_s = max(record.at for record in self.records) - self.baseline_until
        extras = (
            sum(kinds.values()) - 1.2 * kinds.get("first", 0.0) for kinds in self.attempts.values()
        )
        return max(max(extras, default=0.0) - 3 * lasted_s, 0.0)

    def share_of_extra(self) -> float:
        """Retries and hedges over first attempts, of the service with the most."""
        return max((_ratio(kinds) - 1 for kinds in self.attempts.values()), default=math.nan)


class Trial:
    """Runs one row on `bed`, and collects what it found."""

    def __init__(self, name: str, bed: Bed, seed: int) -> None:
        self.name = name
        self.bed = bed
        self.seed = seed
        self.rows: list[Row] = []
        self.notes: list[str] = []
        """What the row drew by its seed."""

    def found(
        self, what: str, value: float, unit: str, target: str | None = None, note: str | None = None
    ) -> None:
        """A figure, and what it must be."""
        self.rows.append(Row(f"{self.name}: {what}", unit, value, target, note=note))

    @asynccontextmanager
    async def under_load(self, options: Options, *, settle: bool = True) -> AsyncIterator[Seen]:
        """A load from before the fault until all is well again.

        The block begins when the baseline is taken; it causes the fault, repairs it and says so by
        `repaired`. The invariants are added at the end.
        """
        bed = self.bed
        before = await bed.footprint()
        async with bed.load(replace(options, seed=self.seed)) as load:
            seen = Seen(load, time.monotonic())
            await asyncio.sleep(FORM.baseline_s)
            attempts = await self.attempts()
            seen.baseline_until = seen.repaired_at = time.monotonic()
            yield seen
            await self._until_well(seen)
            seen.records = await load.stop()
        seen.attempts = _grown(attempts, await self.attempts())
        self._invariants(seen)
        if settle:
            await self._leaks(before)

    async def _until_well(self, seen: Seen) -> None:
        """Go on until enough was sent, and the load is served as before or too long is over."""
        enough = time.monotonic() + LONGEST_S
        while time.monotonic() < enough:
            seen.records = seen.load.records()
            recovered = figures.recovered_s(
                seen.records,
                seen.repaired_at,
                seen.baseline(),
                window_s=FORM.window_s,
                slowdown_limit=FORM.slowdown,
            )
            too_long = time.monotonic() > seen.repaired_at + RECOVERED_S + FORM.window_s + 1
            if len(seen.records) >= FORM.requests and (recovered < math.inf or too_long):
                return
            await asyncio.sleep(0.5)

    def _invariants(self, seen: Seen) -> None:
        records = seen.records
        outcomes = figures.outcomes(records)
        lag_ms = figures.quantile((record.sent - record.at for record in records), 0.99) * 1e3
        self.found(
            "requests", len(records), "requests", f">= {FORM.requests}",
            f"seed {self.seed}; {', '.join([*self.notes, str(outcomes)])}; "
            f"{figures.reasons(records)}",
        )  # fmt: skip
        # A load that is late itself, or other work on the machine, is no fault of the mesh.
        self.found(
            "p99 of what a request left late", lag_ms, "ms",
            note=f"load average of the machine {os.getloadavg()[0]:.1f}",
        )  # fmt: skip
        without = outcomes.get("late", 0) + outcomes.get("reset", 0)
        by = f"deadline + {FORM.grace_s * 1e3:.0f} ms"
        self.found(f"without an outcome by {by}", without, "requests", "<= 0")
        untyped = sum(outcomes.get(name, 0) for name in figures.UNTYPED)
        self.found("untyped 500", untyped, "requests", "<= 0")
        # Of few requests, those that a budget grants in any case are a large share.
        of_many = "<= 1.2" if FULL else None
        self.found("attempts per request", 1 + seen.share_of_extra(), "", of_many)
        self.found("attempts beyond the budget", seen.beyond_budget(), "", "<= 0")
        self.found("streams without an end", outcomes.get("broken", 0), "streams", "<= 0")
        window = (records, seen.repaired_at, seen.baseline())
        baseline_ms = figures.p99_s(seen.baseline()) * 1e3
        best = figures.best_window(*window, window_s=FORM.window_s)
        self.found(
            f"back to p99 <= {FORM.slowdown:g}x baseline",
            figures.recovered_s(*window, window_s=FORM.window_s, slowdown_limit=FORM.slowdown),
            "s", f"<= {RECOVERED_S:g}", f"baseline p99 {baseline_ms:.0f} ms; {best}",
        )  # fmt: skip

    async def _leaks(self, before: Footprint) -> None:
        """Tasks, descriptors and memory against those before, once they have settled."""
        begun = time.monotonic()
        while True:
            after = await self.bed.footprint()
            grown = {
                "tasks": after.tasks / before.tasks,
                "descriptors": after.descriptors / before.descriptors,
                "memory": after.resident_bytes / before.resident_bytes,
            }
            settled = all(value <= LEAK for value in grown.values())
            if settled or time.monotonic() > begun + SETTLE_S:
                break
            await asyncio.sleep(0.5)
        note = f"{before} -> {after}"
        for name, value in grown.items():
            self.found(f"{name} of the gateway, after : before", value, "", f"<= {LEAK}", note)

    async def attempts(self) -> dict[str, dict[str, float]]:
        """Of the gateway: service -> kind -> how many since its start."""
        found: dict[str, dict[str, float]] = {}
        for (name, labels), value in (await self.bed.metrics()).items():
            if name == "raglan_attempts_total":
                of = dict(label.split("=") for label in labels.split(","))
                found.setdefault(of["service"], {})[of["kind"]] = value
        return found


def _grown(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Of a counter that a new process begins at 0 again, only what it says."""
    return {
        service: {
            kind: value - was if value >= (was := before.get(service, {}).get(kind, 0.0)) else value
            for kind, value in kinds.items()
        }
        for service, kinds in after.items()
    }


def _ratio(kinds: dict[str, float]) -> float:
    first = kinds.get("first", 0.0)
    return sum(kinds.values()) / first if first else 1.0


async def capacity_per_s(bed: Bed, for_s: float) -> float:
    """Answers a second when as much is asked as is answered."""
    options = replace(bed.options(seed=time.time_ns() % 1_000_000, rate=0), workers=24)
    async with bed.load(options) as load:
        await asyncio.sleep(0.5 + for_s)
        records = await load.stop()
    begun = records[0].at + 0.5
    answered = [r for r in records if r.outcome == "ok" and r.at + r.took_s >= begun]
    assert answered, f"nothing is answered: {figures.outcomes(records)}; see {bed.folder}"
    return len(answered) / (max(r.at + r.took_s for r in answered) - begun)
