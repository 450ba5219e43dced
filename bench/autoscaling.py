"""Autoscaling simulated: `make bench-autoscaling`.

    python bench/autoscaling.py [reranker] [generator] [search]

A week of a campus RAG service (RAGPulse) at 1 to 100 times its load, against reranker and generator
under each policy: what is refused, how long a question waits, and what it costs in hours of a
replica, which for the generator is a GPU. `search` tries every threshold on the busiest day.
The table and the series of the plot go to bench/results.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from autoscalers import (
    SYNC_S,
    TOLERANCE,
    Activation,
    Behavior,
    Limit,
    Stabiliser,
    ZeroScaler,
    desired_for_total,
)
from load import percentile
from report import RESULTS, Row, publish
from scaled_services import Ask, GeneratorReplica, Outcome, Replica, RerankerReplica

SPREAD_S: Final = 60.0
"""Copies of a request come within so long before and after it: more users, the same day."""

BUSIEST: Final = (0.0, 86_400.0)
"""The day of the trace with the most requests, on which thresholds are searched."""

SEED: Final = 20_261_129


@dataclass(frozen=True)
class Service:
    """What is scaled."""

    name: str
    make: Callable[[float], Replica]
    start_s: float
    """From the decision to a replica that serves."""
    highest: int
    retrieving: bool
    """Whether only requests that retrieve passages reach it."""
    loads: tuple[int, ...] = (1, 10, 100)
    """Times the trace's requests."""


SERVICES: Final = {
    "reranker": Service("reranker", RerankerReplica, 20, 8, True, (1, 10, 100, 300)),
    "generator": Service("generator", GeneratorReplica, 180, 8, False),
}


@dataclass(frozen=True)
class Policy:
    """A way to set the number of replicas."""

    name: str
    signal: str = "backlog"
    """backlog (`raglan_backlog_seconds`) or in_flight (requests of a replica)."""
    target: float = 1.0
    lowest: int = 1
    highest: int | None = None
    behavior: Behavior = field(default_factory=Behavior)
    activation: Activation | None = None

    @property
    def is_fixed(self) -> bool:
        """True where nothing scales."""
        return self.lowest == self.highest


# --- Load -----------------------------------------------------------------------------------------


def read_trace(folder: Path) -> list[tuple[Ask, bool]]:
    """Read the requests in order of time, and whether each retrieves passages."""
    found = []
    for line in (folder / "0_trace.jsonl").read_text().splitlines():
        if line.strip():
            request = json.loads(line)
            ask = Ask(
                float(request["timestamp"]),
                int(request["input_length"]),
                max(1, int(request["output_length"])),
            )
            found.append((ask, bool(request["hash_ids"]["passages_ids"])))
    return sorted(found)


def multiply(asks: Sequence[Ask], times: int, seed: int) -> list[Ask]:
    """Return `times` as many requests: each once as it was, and its copies somewhat moved."""
    chosen = random.Random(seed)
    moved = [
        ask._replace(at_s=max(0.0, ask.at_s + chosen.uniform(-SPREAD_S, SPREAD_S)))
        for ask in asks
        for _ in range(times - 1)
    ]
    return sorted([*asks, *moved])


# --- Simulation -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Pod:
    """A replica and its life."""

    created_at: float
    ready_at: float
    replica: Replica


@dataclass
class Run:
    """What a policy made of a load."""

    outcome: Outcome = field(default_factory=Outcome)
    replica_s: float = 0.0
    series: list[tuple[float, int, float]] = field(default_factory=list)
    """Time, replicas, backlog of all, at each tick."""

    @property
    def refused(self) -> float:
        """Share of the requests that were refused."""
        return self.outcome.refused / max(1, self.outcome.asked)

    @property
    def hours(self) -> float:
        """Replica-hours."""
        return self.replica_s / 3600

    @property
    def p95_s(self) -> float:
        """95th percentile of the wait of those admitted."""
        return percentile(self.outcome.waits_s, 95) if self.outcome.waits_s else 0.0

    @property
    def most(self) -> int:
        """Largest number of replicas."""
        return max((replicas for _, replicas, _ in self.series), default=0)

    @property
    def backlog_s(self) -> float:
        """Largest backlog of all replicas together."""
        return max((backlog for _, _, backlog in self.series), default=0.0)


class Fleet:
    """The replicas of one service under one policy."""

    def __init__(self, service: Service, policy: Policy, begin: float) -> None:
        self._service, self._policy = service, policy
        highest = policy.highest or service.highest
        # KEDA's part is zero; the HorizontalPodAutoscaler's begins with one.
        self._stabiliser = Stabiliser(policy.behavior, max(1, policy.lowest), highest)
        self._zero = policy.activation and ZeroScaler(policy.activation, begin)
        self._pods = [Pod(begin, begin, service.make(begin)) for _ in range(max(1, policy.lowest))]
        self._draining: list[Pod] = []
        self._scraped = 0.0
        self._asked_since_poll = 0
        self._polled_at = begin
        self.run = Run()

    def ask(self, ask: Ask) -> None:
        """A request arrives at the replica with the fewest."""
        self.run.outcome.asked += 1
        self._asked_since_poll += 1
        ready = [pod for pod in self._pods if pod.ready_at <= ask.at_s]
        for pod in ready:
            pod.replica.advance(ask.at_s)
        if ready:
            least = min(ready, key=lambda pod: pod.replica.in_flight)
            if least.replica.offer(ask, self.run.outcome):
                return
        self.run.outcome.refused += 1

    def tick(self, now: float) -> None:
        """The autoscaler's loop, which sees what was scraped at the tick before."""
        seen = self._scraped
        self._scraped, backlog = self._scrape(now)
        self._release(now)
        replicas = len(self._pods)
        self.run.series.append((now, replicas + len(self._draining), backlog))
        if self._policy.is_fixed:
            return
        wanted = self._wanted(now, replicas, seen)
        while len(self._pods) < wanted:
            ready_at = now + self._service.start_s
            self._pods.append(Pod(now, ready_at, self._service.make(ready_at)))
        while len(self._pods) > wanted:
            self._remove(now)

    def close(self, now: float) -> Run:
        """End the run; replicas that are still there count up to now."""
        for pod in self._pods + self._draining:
            pod.replica.advance(max(now, pod.ready_at))
            self.run.replica_s += now - pod.created_at
        return self.run

    def _wanted(self, now: float, replicas: int, seen: float) -> int:
        if self._zero and now - self._polled_at >= self._policy.activation.polling_s:  # type: ignore[union-attr]
            self._polled_at = now
            # Without a replica there is no backlog: the requests at the gateway wake it.
            active = max(seen, float(self._asked_since_poll))
            self._asked_since_poll = 0
            if (polled := self._zero.next(now, replicas, active)) != replicas:
                return polled
        if not replicas:
            return 0
        desired = desired_for_total(seen, self._policy.target, replicas, TOLERANCE)
        return self._stabiliser.next(now, replicas, desired)

    def _scrape(self, now: float) -> tuple[float, float]:
        """Sum of the signal, and of the backlog, over the replicas that are ready."""
        total = backlog = 0.0
        for pod in self._pods:
            if pod.ready_at <= now:
                pod.replica.advance(now)
                # A sum over a set: its last digits depend on addresses.
                waiting = round(pod.replica.backlog_s(), 6)
                backlog += waiting
                total += waiting if self._policy.signal == "backlog" else pod.replica.in_flight
        return total, backlog

    def _remove(self, now: float) -> None:
        """Take away a replica: one that does not serve yet, else the one with least to do."""
        pod = min(
            self._pods,
            key=lambda pod: (pod.ready_at <= now, pod.replica.in_flight, -pod.created_at),
        )
        self._pods.remove(pod)
        self._draining.append(pod)

    def _release(self, now: float) -> None:
        for pod in list(self._draining):
            pod.replica.advance(max(now, pod.ready_at))
            if not pod.replica.in_flight:
                self._draining.remove(pod)
                self.run.replica_s += now - pod.created_at


def simulate(service: Service, policy: Policy, asks: Sequence[Ask], end: float) -> Run:
    """Run `policy` over `asks`, which are in order of time, until `end`."""
    begin = asks[0].at_s - SYNC_S
    fleet = Fleet(service, policy, begin)
    tick = begin + SYNC_S
    for ask in asks:
        while tick <= ask.at_s:
            fleet.tick(tick)
            tick += SYNC_S
        fleet.ask(ask)
    while tick <= end:
        fleet.tick(tick)
        tick += SYNC_S
    return fleet.close(tick - SYNC_S)


# --- Policies -------------------------------------------------------------------------------------

SHIPPED: Final = {
    "reranker": Policy(
        "HPA, as shipped",
        target=0.1,
        behavior=Behavior((Limit("Pods", 1, 30),), (Limit("Pods", 1, 60),), 0, 300),
    ),
    "generator": Policy(
        "HPA, as shipped",
        target=1,
        behavior=Behavior((Limit("Pods", 1, 180),), (Limit("Pods", 1, 300),), 60, 1200),
    ),
}
"""Thresholds of deploy/helm/raglan/values-autoscale.yaml; a test compares them."""

TARGETS: Final = {"reranker": (0.1, 0.2, 0.3, 0.5), "generator": (0.5, 1, 2, 2.5, 3, 4)}
WINDOWS_S: Final = {"reranker": (60, 300, 600, 1200), "generator": (300, 600, 1200, 1800)}
MOST_REFUSED: Final = {"reranker": 0.003, "generator": 0.004}
"""Of the requests of the busiest day at the highest load: an unread passage costs its place in
an order, a refused question its answer by the model. Of the thresholds within it the cheapest is
shipped."""


def grid(name: str) -> Iterator[Policy]:
    """Every threshold that is searched for service `name`."""
    shipped = SHIPPED[name].behavior
    for target, window_s, gentle in itertools.product(
        TARGETS[name], WINDOWS_S[name], (True, False)
    ):
        up = shipped.up if gentle else Behavior().up
        yield Policy(
            f"backlog {target:g} s, down {window_s} s{', one at a time' if gentle else ''}",
            target=target,
            behavior=replace(shipped, up=up, down_window_s=window_s),
        )


def policies(name: str) -> list[Policy]:
    """Policies of the table, from nothing to what is shipped."""
    shipped = SHIPPED[name]
    busy = {"reranker": 4, "generator": 24}[name]
    fixed = {"reranker": (1, 4), "generator": (1, 2, 3)}[name]
    return [
        *(Policy(f"{count} fixed", lowest=count, highest=count) for count in fixed),
        Policy(f"HPA, {busy} requests in flight", signal="in_flight", target=busy),
        Policy("HPA, 1 s of backlog, its defaults", target=1),
        shipped,
        replace(shipped, name="KEDA, the same, to zero", lowest=0, activation=Activation()),
    ]


# --- Runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One policy on one load."""

    service: str
    policy: Policy
    times: int
    busiest_only: bool


def run_case(case: Case) -> Run:
    """Simulate `case`; the same case gives the same result."""
    service = SERVICES[case.service]
    asks = [
        ask for ask, retrieves in read_trace(trace_folder()) if retrieves or not service.retrieving
    ]
    if case.busiest_only:
        asks = [ask for ask in asks if BUSIEST[0] <= ask.at_s < BUSIEST[1]]
    asks = multiply(asks, case.times, SEED)
    return simulate(service, case.policy, asks, asks[-1].at_s + 600)


def run_cases(cases: Sequence[Case]) -> list[Run]:
    """Simulate all, a process a core."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return list(pool.map(run_case, cases, timeout=1800))


def trace_folder() -> Path:
    """Folder of the trace, below $EVAL_DATA_DIR."""
    folder = Path(os.environ.get("EVAL_DATA_DIR", "")) / "ragpulse"
    if not (folder / "0_trace.jsonl").is_file():
        raise SystemExit(
            f"No trace in {folder}. Set EVAL_DATA_DIR to a folder that holds ragpulse/."
        )
    return folder


def search(name: str) -> None:
    """Print every policy of the grid on the busiest day at the highest load, and the best."""
    cases = [Case(name, policy, SERVICES[name].loads[-1], True) for policy in grid(name)]
    runs = run_cases(cases)
    for case, run in zip(cases, runs, strict=True):
        print(
            f"{name}, {case.policy.name}: refused {run.refused:.3%}, p95 {run.p95_s:.2f} s, "
            f"{run.hours:.1f} h, most {run.most}"
        )
    within = [
        (run.hours, case.policy.name)
        for case, run in zip(cases, runs, strict=True)
        if run.refused <= MOST_REFUSED[name]
    ]
    print(f"{name}: cheapest with {MOST_REFUSED[name]:.1%} refused at most: {min(within)[1]}")


def table(name: str) -> tuple[list[Row], dict[str, object]]:
    """Simulate the whole week under every policy and load.

    Returns:
        The rows, and what the plot needs of the highest load.
    """
    service = SERVICES[name]
    chosen = policies(name)
    cases = [Case(name, policy, times, False) for times in service.loads for policy in chosen]
    runs = run_cases(cases)
    rows = []
    for case, run in zip(cases, runs, strict=True):
        what = f"{name}, {case.times} times the trace, {case.policy.name}"
        note = (
            f"wait p95 {run.p95_s:.2f} s, largest backlog {run.backlog_s:.1f} s, at most {run.most}"
        )
        rows.append(Row(f"{what}: refused", "share", run.refused, note=note))
        rows.append(Row(f"{what}: replica-hours", "h", run.hours))
    last = dict(zip((case.policy.name for case in cases), runs, strict=True))
    drawn = [f"{service_fixed(name)} fixed", SHIPPED[name].name]
    return rows, {
        "times": service.loads[-1],
        **_requests(name),
        "replicas": {policy: _hourly(last[policy]) for policy in drawn},
    }


def service_fixed(name: str) -> int:
    """Number of fixed replicas that the plot compares with."""
    return {"reranker": 4, "generator": 3}[name]


def _requests(name: str) -> dict[str, list[float]]:
    service = SERVICES[name]
    counts: dict[int, int] = {}
    for ask, retrieves in read_trace(trace_folder()):
        if retrieves or not service.retrieving:
            hour = int(ask.at_s // 3600)
            counts[hour] = counts.get(hour, 0) + 1
    hours = range(max(counts) + 1)
    times = service.loads[-1]
    return {
        "hours": [float(hour) for hour in hours],
        "requests_a_minute": [round(counts.get(hour, 0) * times / 60, 1) for hour in hours],
    }


def _hourly(run: Run) -> list[float]:
    """Mean replicas of each hour."""
    found: dict[int, list[int]] = {}
    for at, replicas, _ in run.series:
        found.setdefault(int(at // 3600), []).append(replicas)
    return [round(sum(found[hour]) / len(found[hour]), 2) for hour in sorted(found)]


def main() -> None:
    """Simulate what the command line names; `search` prints the grid instead."""
    chosen = [name for name in sys.argv[1:] if name != "search"] or list(SERVICES)
    if unknown := set(chosen) - set(SERVICES):
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(SERVICES)}.")
    if "search" in sys.argv[1:]:
        for name in chosen:
            search(name)
        return
    rows: list[Row] = []
    series = {}
    for name in chosen:
        found, series[name] = table(name)
        rows += found
    publish("autoscaling", rows)
    if set(chosen) == set(SERVICES):
        path = RESULTS / "autoscaling-series.json"
        path.write_text(json.dumps({"services": series}) + "\n")


if __name__ == "__main__":
    main()
