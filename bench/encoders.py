"""The embedder against its peers, same weights, same two cores: `make bench-encoders`.

    python bench/encoders.py [memory] [infinity] [passages] [overhead] [lanes] [overload]

Without names, all of them, into `bench/results/encoders.json`; with names, into a file of their
own. Rounds are interleaved (ours, peer, ours, ...) and figures are medians over them. Every server,
the load generator and the peers share two cores; vector caches are off.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import encoder_overload
import numpy as np
import psutil
from callers import OK
from encoder_servers import Server, embedder, infinity
from in_process import bare_engine, sentence_transformers
from load import Answers, Closed, Generator, generator, percentile
from report import Row, measure, share_cores
from texts import Texts

ROUNDS = 5
CORES = 2
MANY = 32
QUERIES = 800
SINGLE = 60
PASSAGES = 1000
CALL_TEXTS = 64
CALLS_IN_FLIGHT = 4
QUALITY_TEXTS = 200

_ONNX = "Infinity, ONNX f32"
_CUT = {_ONNX: "it reads 512 tokens of a text, where the model's own limit is 256"}

Group = Callable[[Generator, Texts], list[Row]]


def main() -> None:
    """Measure what the command line names."""
    share_cores(CORES)
    with generator() as load:
        groups = {name: partial(group, load, Texts()) for name, group in GROUPS.items()}
        measure("encoders", groups, sys.argv[1:])


def memory(load: Generator, texts: Texts) -> list[Row]:
    """Measure the memory of the process after real work."""
    with embedder() as ours:
        process = psutil.Process(ours.pid)
        fresh = process.memory_info().rss
        load.run(_bulk(ours, texts.mixed(1024)))
        load.run(Closed(ours.target, ours.queries(texts.questions(1000)), 8))
        family = [process, *process.children(recursive=True)]
        held = sum(each.memory_info().rss for each in family)
    note = f"{fresh / 2**20:.0f} MB when it began to serve"
    what = "memory of the embedder after 1,024 texts and 1,000 queries"
    return [Row(what, "MB", held / 2**20, "<= 400", note=note)]


def against_infinity(load: Generator, texts: Texts) -> list[Row]:
    """Single queries over gRPC and over HTTP, 32 clients and one; and how good the vectors are."""
    mixed = texts.mixed(QUALITY_TEXTS)
    with sentence_transformers() as reference:
        exact = reference.encode(mixed, "f32")[1]
    with embedder() as ours, infinity("torch") as torch, infinity("optimum") as onnx:
        servers = {"ours": ours, "Infinity, torch bf16": torch, _ONNX: onnx}
        many: dict[str, list[float]] = {name: [] for name in servers}
        one: dict[str, list[float]] = {name: [] for name in servers}
        near = {
            name: np.sum(exact * server.vectors(mixed), axis=1) for name, server in servers.items()
        }
        warm = texts.questions(200)
        for server in servers.values():
            _all_ok(load.run(Closed(server.target, server.queries(warm), 8))[0])
        for _ in range(ROUNDS):
            some, few = texts.questions(QUERIES), texts.questions(SINGLE)
            for name, server in servers.items():
                answers = load.run(Closed(server.target, server.queries(some), MANY))[0]
                many[name].append(_all_ok(answers) / answers.seconds)
                answers = load.run(Closed(server.target, server.queries(few), 1))[0]
                _all_ok(answers)
                one[name].append(percentile(answers.took_ms(), 50))
    rows = []
    for peer in list(servers)[1:]:
        what = f"single queries, {MANY} clients"
        rows.append(_against(what, "1/s", many["ours"], many[peer], peer, "ratio >= 5"))
        what = "single queries, one client, p50"
        rows.append(_against(what, "ms", one["ours"], one[peer], peer, "ratio <= 0.2"))
        what = f"cosine to float32 over {QUALITY_TEXTS} mixed texts"
        for name, of in (("mean", np.mean), ("least", np.min)):
            mine, theirs = float(of(near["ours"])), float(of(near[peer]))
            rows.append(Row(f"{what}, {name}", "", mine, None, theirs, peer, _CUT.get(peer)))
    return rows


def passages(load: Generator, texts: Texts) -> list[Row]:
    """A thousand texts of every length: our service in calls of 64, against `encode`."""
    mixed = texts.mixed(PASSAGES)
    part = mixed[: PASSAGES // 4]
    rates: dict[str, list[float]] = {"ours": [], "f32": [], "bf16": []}
    with embedder() as ours, sentence_transformers() as reference:
        for _ in range(ROUNDS):
            answers = load.run(_bulk(ours, mixed))[0]
            _all_ok(answers)
            rates["ours"].append(len(mixed) / answers.seconds)
            rates["f32"].append(len(mixed) / reference.encode(mixed, "f32")[0])
            rates["bf16"].append(len(part) / reference.encode(part, "bf16")[0])
    what = f"{PASSAGES:,} mixed passages"
    name = "sentence-transformers encode"
    return [
        _against(what, "1/s", rates["ours"], rates["f32"], name, "ratio >= 3"),
        _against(what, "1/s", rates["ours"], rates["bf16"], f"{name}, bf16, a quarter of them"),
    ]


def overhead(load: Generator, texts: Texts) -> list[Row]:
    """Measure the time that gRPC and the scheduler add to the bare engine, one query at a time."""
    served: list[float] = []
    bare: list[float] = []
    with embedder() as ours, bare_engine() as engine:
        load.run(Closed(ours.target, ours.queries(texts.questions(50)), 1))
        for _ in range(ROUNDS):
            some = texts.questions(100)
            over, under = engine.beside(ours.target, some, ours.queries(some))
            served.append(percentile(over, 50))
            bare.append(percentile(under, 50))
    added = [over - under for over, under in zip(served, bare, strict=True)]
    note = f"rounds {min(added):.2f} to {max(added):.2f}"
    return [
        _against("one query over gRPC, p50", "ms", served, bare, "bare engine"),
        Row("gRPC and scheduler add, p50", "ms", statistics.median(added), "<= 1.5", note=note),
    ]


def overload(load: Generator, texts: Texts) -> list[Row]:
    """Past capacity: calls of eight passages, then single short queries."""
    with embedder() as ours:
        return encoder_overload.overload(load, ours, texts)


def lanes(load: Generator, texts: Texts) -> list[Row]:
    """Queries while bulk saturates the server."""
    with embedder() as ours:
        return encoder_overload.lanes(load, ours, texts)


GROUPS: dict[str, Group] = {
    "memory": memory,
    "infinity": against_infinity,
    "passages": passages,
    "overhead": overhead,
    "lanes": lanes,
    "overload": overload,
}


def _bulk(server: Server, texts: Sequence[str]) -> Closed:
    """`texts` in calls of 64, several in flight."""
    calls = [
        server.request(texts[at : at + CALL_TEXTS], bulk=True)
        for at in range(0, len(texts), CALL_TEXTS)
    ]
    return Closed(server.target, calls, CALLS_IN_FLIGHT)


def _all_ok(answers: Answers) -> int:
    """Count the calls, all of which must have succeeded: else the rate means nothing."""
    if bad := [status for status in answers.status if status != OK]:
        raise RuntimeError(f"{len(bad)} of {len(answers.status)} calls ended with {set(bad)}")
    return len(answers.status)


def _against(
    what: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    name: str,
    target: str | None = None,
) -> Row:
    """Medians, and how the ratio varied over the rounds."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    note = f"ratio {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"
    medians = statistics.median(ours), statistics.median(peer)
    return Row(what, unit, medians[0], target, medians[1], name, note)


if __name__ == "__main__":
    main()
