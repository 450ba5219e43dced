"""The embedder under more than it can do: queries beside bulk, and loads past capacity."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from callers import LATE, OK, REFUSED, UNREAD
from encoder_servers import Server
from frames import Frames
from load import Answers, Closed, Generator, Open, percentile, poisson
from report import Row
from texts import Texts

ROUNDS = 5

QUERY_RATE = 15.0
LANE_S = 7.0
BULK_TEXTS = 32
BULK_IN_FLIGHT = 6

DEADLINE_S = 0.5
CAPACITY_S = 2.0
LOAD_S = 3.0
SETTLED_S = 0.8
SWEEP = (0.7, 0.85, 1.0, 1.2)
OVERLOADS = (2.0, 5.0)


def lanes(load: Generator, server: Server, texts: Texts) -> list[Row]:
    """Queries 15 a second, by the clock, alone and beside bulk calls that never pause."""
    passages = texts.passages(1024)
    calls = [
        server.request(passages[at : at + BULK_TEXTS], bulk=True)
        for at in range(0, len(passages), BULK_TEXTS)
    ]
    bulk = Closed(server.target, calls, BULK_IN_FLIGHT, seconds=LANE_S)
    idle: list[float] = []
    busy: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    for number in range(ROUNDS):
        for took, with_bulk in ((idle, False), (busy, True)):
            arrivals = poisson(QUERY_RATE, LANE_S, seed=2 * number + with_bulk)
            requests = server.queries(texts.questions(len(arrivals)))
            queries = Open(server.target, requests, arrivals, timeout_s=30)
            found, *rest = load.run(queries, *([bulk] if with_bulk else []))
            took += _answered(found)
            beside += [_texts_a_second(each) for each in rest]
        alone.append(_texts_a_second(load.run(bulk)[0]))
    rates = [statistics.median(rate) for rate in (beside, alone)]
    note = f"{len(busy)} queries beside bulk, {len(idle)} alone"
    p99, p50 = ([percentile(took, percent) for took in (busy, idle)] for percent in (99, 50))
    return [
        Row("query p99 beside bulk", "ms", p99[0], "ratio <= 3", p99[1], "idle", note),
        Row("query p50 beside bulk", "ms", p50[0], None, p50[1], "idle", note),
        Row("bulk beside queries", "texts/s", rates[0], "ratio >= 0.7", rates[1], "alone"),
    ]


@dataclass(frozen=True)
class _Shape:
    """A kind of request, and what is wanted of the server under too many of them."""

    requests: Sequence[bytes]
    clients: int
    """So many that wait for their answers keep the server busy, and no queue grows."""

    goodput: float
    """Least share of the peak."""

    refused_ms: float
    """Longest wait for a refusal, p99."""


def overload(load: Generator, server: Server, texts: Texts) -> list[Row]:
    """Goodput past capacity against its peak, for two kinds of request."""
    eights = texts.passages(2048)
    calls = [server.request(eights[at : at + 8]) for at in range(0, 2048, 8)]
    shapes = {
        "8 passages": _Shape(calls, clients=16, goodput=0.9, refused_ms=20),
        "one query": _Shape(
            server.queries(texts.snippets(20_000)), clients=64, goodput=0.8, refused_ms=50
        ),
    }
    rows = []
    for name, shape in shapes.items():
        sweep = _Sweep()
        for _ in range(ROUNDS):
            sweep.run_round(load, server, shape)
        rows += _rows(name, shape, sweep)
    return rows


@dataclass
class _Sweep:
    """Measurements of each load, over the rounds."""

    capacity: list[float] = field(default_factory=list)
    goodput: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[float, list[Answers]] = field(default_factory=lambda: defaultdict(list))

    def run_round(self, load: Generator, server: Server, shape: _Shape) -> None:
        """Measure the capacity and then every load, as multiples of it."""
        number = len(self.capacity)
        # Each round begins elsewhere among the requests.
        turned = [*shape.requests[number * 50 :], *shape.requests[: number * 50]]
        full = load.run(
            Frames(server.target, turned, 60, clients=shape.clients, seconds=CAPACITY_S)
        )[0]
        capacity = full.count(OK) / full.seconds
        self.capacity.append(capacity)
        for times in (*SWEEP, *OVERLOADS):
            seconds = SETTLED_S + LOAD_S
            arrivals = poisson(times * capacity, seconds, seed=number)
            answers = load.run(Frames(server.target, turned, DEADLINE_S, arrivals))[0]
            self.goodput[times].append(answers.goodput(SETTLED_S, seconds, DEADLINE_S))
            self.answers[times].append(answers)


def _rows(name: str, shape: _Shape, sweep: _Sweep) -> list[Row]:
    goodput = {times: statistics.median(rates) for times, rates in sweep.goodput.items()}
    capacity = statistics.median(sweep.capacity)
    # Over the overloads, too: where the capacity was underestimated the sweep ends before the peak.
    best = max(goodput, key=lambda times: goodput[times])
    rows = []
    for times in OVERLOADS:
        peak = f"peak, at {best:g} x {capacity:.0f}/s"
        what, target = f"{name}, goodput at {times:g}x", f"ratio >= {shape.goodput}"
        note = _ended(sweep.answers[times])
        rows.append(Row(what, "1/s", goodput[times], target, goodput[best], peak, note))
        refused = [
            took
            for each in sweep.answers[times]
            for status in (REFUSED, UNREAD)
            for took in each.took_ms(status)
        ]
        if refused:
            what = f"{name}, refusals at {times:g}x"
            target, note = f"<= {shape.refused_ms:g}", f"{len(refused)} refusals"
            rows.append(Row(f"{what}, p99", "ms", percentile(refused, 99), target, note=note))
            rows.append(Row(f"{what}, p50", "ms", percentile(refused, 50), target))
    return rows


def _ended(runs: Sequence[Answers]) -> str:
    """Describe how the calls of an overload ended, and what the generator itself took."""
    count = sum(len(run.status) for run in runs)
    shares = {
        name: sum(run.count(status) for run in runs) / count
        for name, status in (
            ("answered", OK),
            ("refused by the queue", REFUSED),
            ("by gRPC unread", UNREAD),
            ("late", LATE),
        )
    }
    lag = [(sent - due) * 1e3 for run in runs for sent, due in zip(run.sent, run.due, strict=True)]
    cpu = sum(run.cpu_seconds for run in runs) / sum(run.seconds for run in runs)
    ended = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    return f"{ended}; load {cpu:.2f} cores, sent late by {percentile(lag, 99):.0f} ms p99"


def _answered(answers: Answers) -> list[float]:
    """Milliseconds of all calls; one that failed counts as infinitely slow."""
    return answers.took_ms() + [float("inf")] * (len(answers.status) - answers.count(OK))


def _texts_a_second(answers: Answers) -> float:
    return answers.count(OK) * BULK_TEXTS / answers.seconds
