"""Simulated loads through the scheduler that serves: `make bench-scheduling`.

    python bench/scheduling.py [goodput] [lanes]

Goodput is the share of texts answered within 500 ms, for 0.1 to 2 times what the device can do with
full batches of like lengths; medians over seeds. Token counts are those of real questions and
passages.
"""

from __future__ import annotations

import random
import statistics
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from load import percentile
from policies import POLICIES, Scheduled
from raglan.encoders import model as models
from raglan.encoders.tokenizer import Tokenizers
from report import Row, publish
from simulation import Arrivals, Device, Job, Text, best_cost, bursty, ceiling, poisson, simulate
from texts import Texts

CPU = Device("CPU", 1e-4, 1e-3, streams=2, batch_tokens=512, batch_items=8, window=64)
"""MiniLM in int8 on a core of 2026: 10,000 tokens a second and 1 ms a batch. Limits are those that
the embedder sets."""

GPU = Device("GPU", 3e-6, 4e-3, streams=1, batch_tokens=16_384, batch_items=256, window=1024)
"""A BGE-M3 on a large GPU: 330,000 tokens a second and 4 ms a batch."""

LOADS = (0.1, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0)
SECONDS = {"CPU": 15.0, "GPU": 4.0}
LANE_S = 8.0
SETTLED_S = 1.0
DEADLINE_S = 0.5
SEEDS = 5
PROCESSES = {"Poisson": poisson, "bursty": bursty}
TEXTS = 1000


@dataclass(frozen=True)
class Scenario:
    """One load on one device, to be run by every policy."""

    device: Device
    process: str
    load: float
    seed: int
    lengths: tuple[int, ...]

    def arrivals(self) -> Arrivals:
        """The same for every policy."""
        chosen = random.Random(self.seed)
        seconds = SECONDS[self.device.name]
        for now in PROCESSES[self.process](self.rate, seconds, chosen):
            yield now, [Text(chosen.choice(self.lengths), now, now + DEADLINE_S)]

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.load * capacity(self.device, self.lengths)


def capacity(device: Device, lengths: Sequence[int]) -> float:
    """Texts a second with full batches of like lengths."""
    cost = best_cost(device, sorted(lengths) * 20)
    return 1 / statistics.fmean(cost[length] for length in lengths)


def shares(scenario: Scenario) -> dict[str, float]:
    """Goodput of every policy, and what could be had."""
    device, end = scenario.device, SECONDS[scenario.device.name] - DEADLINE_S
    found = {
        name: simulate(make(device), device, scenario.arrivals(), seed=scenario.seed).goodput(
            SETTLED_S, end
        )
        for name, make in POLICIES.items()
    }
    cost = best_cost(device, sorted(scenario.lengths) * 20)
    return found | {"ceiling": ceiling(cost, scenario.arrivals(), SETTLED_S, end)}


def goodput(lengths: tuple[int, ...]) -> list[Row]:
    """Every policy under every load; a line where the scheduler is not the best names the seeds."""
    scenarios = [
        Scenario(device, process, load, seed, lengths)
        for device in (CPU, GPU)
        for process in PROCESSES
        for load in LOADS
        for seed in range(SEEDS)
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(shares, scenarios, timeout=600))
    rows = []
    for at in range(0, len(scenarios), SEEDS):
        first, by_seed = scenarios[at], found[at : at + SEEDS]
        median = {name: statistics.median(each[name] for each in by_seed) for name in by_seed[0]}
        rivals = [name for name in POLICIES if name != "scheduler"]
        best = max(rivals, key=median.__getitem__)
        lost = [
            scenario.seed
            for scenario, each in zip(scenarios[at : at + SEEDS], by_seed, strict=True)
            if each["scheduler"] < max(each[name] for name in rivals) - 0.005
        ]
        others = ", ".join(f"{name} {median[name]:.1%}" for name in rivals)
        note = others + (f"; below the best with seeds {lost}" if lost else "")
        what = (
            f"{first.device.name}, {first.process}, {first.load} x {first.rate / first.load:.0f}/s"
        )
        rows.append(
            Row(
                f"{what}: goodput (ceiling {median['ceiling']:.1%})",
                "share",
                median["scheduler"],
                peer=median[best],
                peer_name=f"best rival: {best}",
                note=note,
            )
        )
    return rows


# --- Two lanes ------------------------------------------------------------------------------------


def lanes(lengths: tuple[int, ...]) -> list[Row]:
    """Queries beside bulk that never ends, on one GPU that both share."""
    rows = []
    for load in (0.1, 0.5, 1.5):
        passed: list[int] = []
        behind: list[float] = []
        batches: list[float] = []
        shares: list[float] = []
        in_time: list[float] = []
        for seed in range(SEEDS):
            trace = simulate(Scheduled(GPU), GPU, _both(load, lengths, seed), seed=seed)
            bulk = [job for job in trace.jobs if job.texts[0].bulk]
            batches.append(max(job.seconds for job in bulk))
            for query in trace.texts:
                if not query.bulk and query.done_at < float("inf"):
                    seconds, begun = _behind(bulk, query)
                    behind.append(seconds)
                    passed.append(begun)
            shares.append(_share(bulk, trace.jobs))
            in_time.append(_in_time(trace.texts))
        what = f"two lanes on one GPU, queries at {load} of it"
        bounded = "<= 1" if load < 1 else None
        rows += [
            Row(
                f"{what}: goodput of queries",
                "share",
                min(in_time),
                ">= 0.99" if load < 1 else None,
                note="by seed: " + ", ".join(f"{share:.1%}" for share in in_time),
            ),
            Row(f"{what}: bulk batches begun while one waits, most", "", max(passed), bounded),
            Row(
                f"{what}: bulk that one waits behind, p99",
                "s",
                percentile(behind, 99),
                "ratio <= 1" if load < 1 else None,
                statistics.median(batches),
                "longest bulk batch",
                f"most {max(behind):.3f} s",
            ),
            Row(f"{what}: bulk's share of padded tokens", "share", min(shares), ">= 0.2"),
        ]
    return rows


def _behind(bulk: Sequence[Job], query: Text) -> tuple[float, int]:
    """Return seconds and number of the bulk batches between a query's arrival and its start.

    On one stream; the number counts those that began in that time.
    """
    first = bisect_right(bulk, query.arrived_at, key=_begun_at)
    last = bisect_right(bulk, query.begun_at, key=_begun_at)
    seconds = sum(job.seconds for job in bulk[first:last])
    if first:
        running = bulk[first - 1]
        seconds += max(0.0, running.begun_at + running.seconds - query.arrived_at)
    return seconds, last - first


def _in_time(texts: Sequence[Text]) -> float:
    """The share of the queries, after the start and before the end, answered in time."""
    last = LANE_S - DEADLINE_S
    asked = [text for text in texts if not text.bulk and SETTLED_S <= text.arrived_at < last]
    return sum(text.in_time for text in asked) / len(asked)


def _begun_at(job: Job) -> float:
    return job.begun_at


def _share(bulk: Sequence[Job], jobs: Sequence[Job]) -> float:
    """Of the padded tokens begun after the start and before the last arrivals."""
    last = LANE_S - DEADLINE_S
    part, whole = (
        sum(job.padded_tokens for job in some if SETTLED_S <= job.begun_at < last)
        for some in (bulk, jobs)
    )
    return part / whole


def _both(load: float, lengths: tuple[int, ...], seed: int) -> Iterator[tuple[float, list[Text]]]:
    """Single queries by Poisson, and bulk requests of 64 at twice what the device can do."""
    chosen = random.Random(seed)
    full = capacity(GPU, lengths)
    seconds = LANE_S
    queries = [(now, False) for now in poisson(load * full, seconds, chosen)]
    bulk = [(now, True) for now in poisson(2 * full / 64, seconds, chosen)]
    for now, is_bulk in sorted(queries + bulk):
        size, deadline = (64, 30.0) if is_bulk else (1, DEADLINE_S)
        yield now, [Text(chosen.choice(lengths), now, now + deadline, is_bulk) for _ in range(size)]


def token_counts() -> tuple[int, ...]:
    """Of as many questions as passages."""
    texts = Texts()
    model = models.read(models.DEFAULT_MODEL)
    ids = Tokenizers(model.path, model.max_tokens).ids(
        [*texts.questions(TEXTS // 2), *texts.passages(TEXTS // 2)]
    )
    return tuple(len(each) for each in ids)


PARTS: dict[str, Callable[[tuple[int, ...]], list[Row]]] = {"goodput": goodput, "lanes": lanes}


def main() -> None:
    """Simulate what the command line names."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    lengths = token_counts()
    publish(
        "-".join(["scheduling", *sys.argv[1:]]),
        [row for name in chosen for row in PARTS[name](lengths)],
    )


if __name__ == "__main__":
    main()
