"""More questions than can be answered: who is answered in time, who is refused, and how soon."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import generator_servers as servers
from callers import LATE, OK, REFUSED
from generator_questions import Questions
from generator_servers import Asked, Engine, Server
from load import Answers, Closed, Generator, Open, percentile, poisson
from report import Row

ROUNDS = 3
FIRST_S = 1.0
"""Within which an answer is to begin; one that begins later counts as none."""
TOKENS = 64
AT_ONCE = 16
"""Answers that either engine writes at a time; the others wait."""
CLIENTS = 20
"""Keep a server busy, so that its capacity shows, while no queue grows."""
CAPACITY_S = 6.0
SETTLED_S = 4.0
LOAD_S = 10.0
SWEEP = (0.7, 0.85, 1.0, 1.2)
OVERLOAD = 2.0
TIMEOUT_S = 30.0
QUESTIONS = 400

PEER = "vllm serve"


@dataclass
class _Sweep:
    """Measurements of each load, over the rounds."""

    capacity: list[float] = field(default_factory=list)
    goodput: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[float, list[Answers]] = field(default_factory=lambda: defaultdict(list))

    def run_round(self, load: Generator, server: Server, asked: Sequence[Asked]) -> None:
        """Measure the capacity and then every load, as multiples of it.

        The overload is a multiple of the most that the round has seen answered.
        """
        requests = [server.request(each) for each in asked]
        # Nothing is refused while the capacity is measured: all callers wait for their answers.
        patient = [server.request(replace(each, first_ms=0)) for each in asked]
        full = load.run(Closed(server.target, patient, CLIENTS, seconds=CAPACITY_S))[0]
        capacity = full.count(OK) / full.seconds
        self.capacity.append(capacity)
        seconds = SETTLED_S + LOAD_S
        for times in (*SWEEP, OVERLOAD):
            most = capacity
            if times == OVERLOAD:
                # On a shared machine capacity changes: more than it may have been answered since.
                most = max(capacity, *(self.goodput[each][-1] for each in SWEEP))
            arrivals = poisson(times * most, seconds, seed=len(self.capacity))
            answers = load.run(Open(server.target, requests, arrivals, TIMEOUT_S))[0]
            self.goodput[times].append(answers.goodput(SETTLED_S, seconds, FIRST_S))
            self.answers[times].append(answers)

    def medians(self) -> dict[float, float]:
        """Goodput by load."""
        return {times: statistics.median(rates) for times, rates in self.goodput.items()}


def overload(load: Generator, engine: Engine, questions: Questions) -> list[Row]:
    """Goodput past capacity against its peak.

    Our service is told when an answer has to begin. The peer has no such thing: its clients leave
    when nothing has come by then, which frees it of their work.
    """
    sweeps = {"ours": _Sweep(), PEER: _Sweep()}
    with ExitStack() as stack:
        engine = replace(engine, max_num_seqs=AT_ONCE)
        mine = stack.enter_context(servers.ours(engine))
        peer = stack.enter_context(servers.vllm_serve(engine))
        peer = replace(peer, target=replace(peer.target, first_s=FIRST_S))
        for _ in range(ROUNDS):
            asked = questions.some(QUESTIONS, TOKENS, first_ms=round(1e3 * FIRST_S))
            for name, server in (("ours", mine), (PEER, peer)):
                sweeps[name].run_round(load, server, asked)
    return [row for name, sweep in sweeps.items() for row in rows(name, sweep)]


def rows(name: str, sweep: _Sweep) -> list[Row]:
    """Of one server; only ours has targets."""
    goodput = sweep.medians()
    capacity = statistics.median(sweep.capacity)
    # Over the overload, too: where the capacity was underestimated the sweep ends before the peak.
    best = max(goodput, key=lambda times: goodput[times])
    peak = f"its peak, at {best:g} x {capacity:.1f}/s"
    note = ended(sweep.answers[OVERLOAD])
    mine = name == "ours"
    bound = "ratio >= 0.9" if mine else None
    what = f"{name}, goodput at {OVERLOAD:g}x"
    found = [Row(what, "1/s", goodput[OVERLOAD], bound, goodput[best], peak, note)]
    refused = [took for each in sweep.answers[OVERLOAD] for took in each.took_ms(REFUSED)]
    if refused:
        what = f"{name}, refusals at {OVERLOAD:g}x"
        p50, p99 = percentile(refused, 50), percentile(refused, 99)
        found.append(Row(f"{what}, p99", "ms", p99, "<= 50", note=f"{len(refused)} refusals"))
        found.append(Row(f"{what}, p50", "ms", p50))
    began = [took for each in sweep.answers[OVERLOAD] for took in each.began_ms()]
    what = f"{name}, first token p99 at {OVERLOAD:g}x, of what was answered"
    found.append(Row(what, "ms", percentile(began, 99)))
    return found


def ended(runs: Sequence[Answers]) -> str:
    """Describe how the calls of an overload ended, and what the generator itself took."""
    count = sum(len(run.status) for run in runs)
    known = {OK: "answered", REFUSED: "refused", LATE: "late"}
    shares = {
        name: sum(run.count(status) for run in runs) / count for status, name in known.items()
    }
    shares["otherwise"] = 1 - sum(shares.values())
    lag = [(sent - due) * 1e3 for run in runs for sent, due in zip(run.sent, run.due, strict=True)]
    cpu = sum(run.cpu_seconds for run in runs) / sum(run.seconds for run in runs)
    told = ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share > 0)
    return f"{told}; load generator {cpu:.2f} cores, sent late by {percentile(lag, 99):.0f} ms p99"
