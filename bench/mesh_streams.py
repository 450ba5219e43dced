"""256 streams of `/v1/query` at a time before a mock LLM: `make bench-mesh ONLY=streams`.

Gateway and generator (its `openai` engine) are as shipped; embedder, retriever and reranker are
null. The LLM takes 1.15 s for an answer, so 256 callers can ask for 222 streams a second at most.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import mesh_process
import mock_llm
import null_mesh
from callers import OK, Target
from load import Closed, Generator, generator, percentile
from report import Row

STREAMS: Final = 256
SECONDS: Final = 12.0
RAMP_S: Final = 3.0
"""Of these seconds the first are not counted; in the first half of it the callers begin."""
REFUSED_PAUSE_S: Final = 1.0
_REFUSED: Final = ("429", "503")
ROUNDS: Final = 2
"""Of each kind, in turn."""

_QUERY: Final = "How many units does stage {number} of the mesh cost?"
_OPEA: Final = "OPEA ChatQnA's gateway on mocks"


@dataclass(frozen=True)
class Round:
    """Outcome of one load."""

    rate: float
    """Streams that ended whole, a second."""
    first_ms: Sequence[float]
    whole: int
    refused: int
    broken: int
    """Degraded answers too."""


def streams() -> list[Row]:
    """Streams a second and their first tokens, with prompt and with held headers in turn."""
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    with (
        mock_llm.running() as llm,
        null_mesh.running(**mock_llm.variables(llm)) as mesh,
        generator() as callers,
    ):
        numbers = iter(range(10**9))
        _round(mesh, callers, llm, numbers, held=False)
        before = null_mesh.cpu_seconds(mesh)
        for _ in range(ROUNDS):
            for held in rounds:
                rounds[held].append(_round(mesh, callers, llm, numbers, held=held))
        after = null_mesh.cpu_seconds(mesh)
    every = rounds[False] + rounds[True]
    whole = sum(each.whole for each in every)
    spent = {name: (after[name] - before[name]) / whole * 1e3 for name in after}
    return [
        *_rows(rounds[False], rounds[True]),
        Row("streams that ended whole", "", whole),
        Row("refused, to come back later", "", sum(each.refused for each in every)),
        Row("degraded or broken", "", sum(each.broken for each in every), "<= 0"),
        Row(
            "processor time a stream, gateway and generator",
            "ms",
            spent["gateway"] + spent["generator"],
            "<= 13",
        ),
        Row(
            "processor time a stream",
            "ms",
            sum(spent.values()),
            note=", ".join(f"{name} {ms:.2f}" for name, ms in spent.items()),
        ),
    ]


def _rows(prompt: Sequence[Round], held: Sequence[Round]) -> list[Row]:
    rate, held_rate = (statistics.fmean(each.rate for each in some) for some in (prompt, held))
    first, held_first = ([ms for each in some for ms in each.first_ms] for some in (prompt, held))
    kept = "headers held until the first token"
    return [
        Row("streams started", "1/s", rate, ">= 100", 69, _OPEA),
        _first_token("first token", first, 50),
        _first_token("first token", first, 95, 2_520),
        Row(f"streams started, {kept}", "1/s", held_rate, None, 4.6, _OPEA),
        Row(f"streams started, {kept}, share", "", held_rate / rate, ">= 0.9", 4.6 / 69, _OPEA),
        _first_token(f"first token, {kept}", held_first, 95),
    ]


def _first_token(what: str, took: Sequence[float], percent: int, peer: float | None = None) -> Row:
    return Row(
        f"{what}, p{percent}",
        "ms",
        percentile(took, percent),
        "<= 1500" if percent == 95 else None,
        peer,
        _OPEA if peer else None,
        samples=took,
        statistic=f"p{percent}",
    )


def _round(
    mesh: mesh_process.Mesh,
    callers: Generator,
    llm: int,
    numbers: Iterator[int],
    *,
    held: bool,
) -> Round:
    mock_llm.tell(llm, "held" if held else "prompt")
    # Texts that the embedder has not seen.
    asked = [
        json.dumps({"query": _QUERY.format(number=next(numbers)), "stream": True}).encode()
        for _ in range(5_000)
    ]
    target = Target("http-queries", null_mesh.port(mesh), "/v1/query")
    load = Closed(
        target, asked, STREAMS, seconds=SECONDS, ramp_s=RAMP_S / 2, pause_s=REFUSED_PAUSE_S
    )
    (answers,) = callers.run(load)
    rows = zip(answers.sent, answers.began, answers.status, strict=True)
    return Round(
        rate=answers.goodput(RAMP_S, SECONDS, SECONDS),
        first_ms=[
            (began - sent) * 1e3 for sent, began, status in rows if status == OK and sent >= RAMP_S
        ],
        whole=answers.count(OK),
        refused=sum(answers.count(status) for status in _REFUSED),
        broken=sum(status not in (OK, *_REFUSED) for status in answers.status),
    )
