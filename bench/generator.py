"""The generator against `vllm serve`, same weights, same two cores: `make bench-generator`.

    python bench/generator.py [streams] [in_front] [leaving] [overload]

Without names, all of them, into `bench/results/generator.json`; with names, into a file of their
own. Rounds are interleaved (ours, peer, ours, ...) and figures are medians over them. The load
generator and the servers share two cores; one server is under load at a time, the others idle.
Both get the same messages, greedy, and write as many tokens, which is checked for every answer.
The layout of the prompt has a benchmark of its own, `bench/prompt_layout.py`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import generator_leaving
import generator_overload
import generator_servers as servers
import processes
from callers import OK
from generator_floor import floor
from generator_questions import Questions
from generator_servers import Asked, Engine, Server
from load import Answers, Closed, Generator, generator, percentile
from report import Row, measure, share_cores

ROUNDS = 5
CORES = 2
STREAMS = (1, 8, 32)
WAVES = {1: 5, 8: 2, 32: 2}
"""Answers that each stream reads in a round."""
TOKENS = 128
"""Of an answer: a short paragraph."""
WARM_UP = 16

PEER = "vllm serve"

Group = Callable[[Generator, Engine, Questions], list[Row]]


@dataclass
class Measured:
    """Measurements of one server at one number of streams, one entry a round."""

    tokens_s: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    """Median over the round's answers."""
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the server for each token, without its engine's process."""
    load_ms: list[float] = field(default_factory=list)
    """The same of the load generator."""

    def add(self, answers: Answers, cpu_s: float) -> None:
        """Take in a round."""
        tokens = sum(answers.written)
        self.tokens_s.append(tokens / answers.seconds)
        self.first_ms.append(percentile(answers.began_ms(), 50))
        self.cpu_ms.append(1e3 * cpu_s / tokens)
        self.load_ms.append(1e3 * answers.cpu_seconds / tokens)


Table = dict[str, dict[int, Measured]]
"""By server and number of streams."""


def main() -> None:
    """Measure what the command line names."""
    # It takes seconds to import, and only here is it needed.
    import generator_models

    servers.installed()
    share_cores(CORES)
    with generator() as load, tempfile.TemporaryDirectory() as folder:
        generator_models.write_endless(Path(folder))
        engine = Engine(Path(folder))
        groups = {name: partial(group, load, engine, Questions()) for name, group in GROUPS.items()}
        measure("generator", groups, sys.argv[1:])


def streams(load: Generator, engine: Engine, questions: Questions) -> list[Row]:
    """Our service and `vllm serve`, and the engine without any server."""
    with ExitStack() as stack:
        mine = stack.enter_context(servers.ours(engine))
        peer = stack.enter_context(servers.vllm_serve(engine))
        bare = stack.enter_context(floor(engine))
        table = interleaved(load, {"ours": mine, PEER: peer}, questions, bare.run)
    rows = []
    for count in STREAMS:
        rows += _rows(f"{count} streams", table["ours"][count], table[PEER][count], PEER, bound=1)
        rows += _rows(f"{count} streams", table["ours"][count], table["bare"][count], "AsyncLLM")
    return rows


def in_front(load: Generator, engine: Engine, questions: Questions) -> list[Row]:
    """Measure the time that our service adds before `vllm serve`, through its `openai` engine."""
    # One server answers both ways: whoever asked second would be served from its cache.
    engine = replace(engine, enable_prefix_caching=False)
    with ExitStack() as stack:
        peer = stack.enter_context(servers.vllm_serve(engine))
        mine = stack.enter_context(servers.in_front_of(peer, engine))
        table = interleaved(load, {"ours": mine, PEER: peer}, questions)
    what = "openai engine before vllm serve"
    rows = []
    for count in STREAMS:
        before, direct = table["ours"][count], table[PEER][count]
        rows += _rows(f"{what}, {count} streams", before, direct, f"{PEER} asked directly")
    return rows


def interleaved(
    load: Generator,
    running: dict[str, Server],
    questions: Questions,
    bare: Callable[[Sequence[Asked], int], Answers] | None = None,
) -> Table:
    """Rounds of every number of streams; the same questions to each, in turn."""
    table: Table = defaultdict(lambda: defaultdict(Measured))
    for number in range(-1, ROUNDS):
        for count in STREAMS:
            some = questions.some(count * WAVES[count] if number >= 0 else WARM_UP, TOKENS)
            read = {}
            for name, server in running.items():
                before = processes.cpu_seconds(server.pid, children=False)
                requests = [server.request(each) for each in some]
                answers = load.run(Closed(server.target, requests, count))[0]
                spent = processes.cpu_seconds(server.pid, children=False) - before
                read[name] = check(name, answers)
                if number >= 0:
                    table[name][count].add(answers, spent)
            if bare is not None:
                answers = bare(some, count)
                read["bare"] = check("bare", answers)
                if number >= 0:
                    table["bare"][count].add(answers, answers.cpu_seconds)
            if len(set(map(tuple, read.values()))) > 1:
                raise RuntimeError(f"Prompts differ in tokens: {read}")
    return table


def check(name: str, answers: Answers) -> list[int]:
    """The tokens of the prompts, sorted, once every answer is known to be whole."""
    if bad := [status for status in answers.status if status != OK]:
        raise RuntimeError(f"{len(bad)} of {name}'s {len(answers.status)} calls ended: {set(bad)}")
    if set(answers.written) != {TOKENS}:
        raise RuntimeError(f"{name} wrote {set(answers.written)} tokens, not {TOKENS}")
    return sorted(answers.read)


def _rows(
    what: str, ours: Measured, peer: Measured, name: str, bound: float | None = None
) -> list[Row]:
    at_least, at_most = (f"ratio {sign} {bound:g}" if bound else None for sign in (">=", "<="))
    load = [statistics.median(each.load_ms) for each in (ours, peer)]
    note = f"load generator {load[0]:.2f} and {load[1]:.2f} ms of CPU a token"
    return [
        _row(f"{what}, tokens", "1/s", ours.tokens_s, peer.tokens_s, name, at_least, note),
        _row(f"{what}, first token p50", "ms", ours.first_ms, peer.first_ms, name, at_most),
        _row(
            f"{what}, CPU for a token without the engine's process",
            "ms",
            ours.cpu_ms,
            peer.cpu_ms,
            name,
        ),
    ]


def _row(
    what: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    name: str,
    target: str | None = None,
    note: str = "",
) -> Row:
    """Medians, and how the ratio varied over the rounds."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    varied = (
        f"ratio of a round {min(ratios):.2f} to {max(ratios):.2f}, "
        f"median {statistics.median(ratios):.2f}, of {len(ratios)}"
    )
    medians = statistics.median(ours), statistics.median(peer)
    return Row(
        what, unit, medians[0], target, medians[1], name, "; ".join(filter(None, (varied, note)))
    )


GROUPS: dict[str, Group] = {
    "streams": streams,
    "in_front": in_front,
    "leaving": generator_leaving.leaving,
    "overload": generator_overload.overload,
}


if __name__ == "__main__":
    main()
