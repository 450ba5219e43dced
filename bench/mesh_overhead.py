"""Overhead of the mesh a query: every service as a process, with engines that cost nothing.

`make bench-mesh ONLY=overhead`; with BEFORE=<commit> also beside that commit. The caller is a
process of its own over plain HTTP/1.1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Final

import mesh_before
import mesh_process
import null_mesh
from callers import OK, Target
from load import Answers, Closed, Generator, generator, percentile
from report import Row

QUERIES: Final = 1_000
PACED_QUERIES: Final = 500
CLIENTS: Final = 16
SECONDS: Final = 10.0

TOKENS: Final = 20
TOKEN_MS: Final = 5
"""Between two tokens, as a fast model has it: what the mesh does meanwhile costs nobody time."""

_NOTHING: Final = "as its client sees it; nothing is subtracted, the engines compute nothing"


def overhead() -> list[Row]:
    """Latency for one caller, and how many requests a second sixteen get."""
    rows: list[Row] = []
    with _mesh(token_ms=0) as mesh, generator() as callers:
        search = _Measured(mesh, callers, "/v1/search")
        rows += search.alone("/v1/search", note=_NOTHING)
        rows += search.together("/v1/search")
        query = _Measured(mesh, callers, "/v1/query")
        rows += query.alone(f"/v1/query, {TOKENS} tokens at once", targets=False, note=_NOTHING)
        rows += query.together(f"/v1/query, {TOKENS} tokens at once")
        fell_back = null_mesh.degraded(mesh)
    with _mesh(token_ms=TOKEN_MS) as mesh, generator() as callers:
        compute_ms = (TOKENS - 1) * TOKEN_MS
        rows += _Measured(mesh, callers, "/v1/query").alone(
            f"/v1/query, {TOKENS} tokens {TOKEN_MS} ms apart",
            queries=PACED_QUERIES,
            compute_ms=compute_ms,
            note=f"as its client sees it, less the {compute_ms} ms that the null generator waits "
            "between its tokens; the other engines compute nothing",
        )
        fell_back += null_mesh.degraded(mesh)
    rows.append(Row("stages that fell back, of all these queries", "", fell_back, "<= 0"))
    if commit := os.environ.get("BEFORE"):
        rows += mesh_before.before(commit)
    return rows


def _mesh(*, token_ms: int) -> null_mesh.Running:
    return null_mesh.running(
        RAGLAN_GENERATOR_NULL_TOKENS=str(TOKENS), RAGLAN_GENERATOR_NULL_TOKEN_MS=str(token_ms)
    )


class _Measured:
    """One route of a running mesh."""

    def __init__(self, mesh: mesh_process.Mesh, callers: Generator, path: str) -> None:
        self._mesh = mesh
        self._callers = callers
        self._target = Target("http", null_mesh.port(mesh), path)
        self._queries = _queries(path)

    def alone(
        self,
        what: str,
        *,
        queries: int = QUERIES,
        compute_ms: int = 0,
        targets: bool = True,
        note: str,
    ) -> list[Row]:
        """One caller, one request at a time."""
        self._run(queries // 5, clients=1)
        before = null_mesh.cpu_seconds(self._mesh)
        took = [ms - compute_ms for ms in self._run(queries, clients=1).took_ms()]
        after = null_mesh.cpu_seconds(self._mesh)
        spent = {name: (after[name] - before[name]) / queries * 1e3 for name in after}
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
        limits = ("<= 6", "<= 20") if targets else (None, None)
        return [
            _percentile(f"{what}, added", took, 50, limits[0], note),
            _percentile(f"{what}, added", took, 99, limits[1]),
            Row(f"{what}, processor time", "ms", sum(spent.values()), note=parts),
        ]

    def together(self, what: str) -> list[Row]:
        """Sixteen callers without a pause."""
        answers = self._run(0, clients=CLIENTS)
        took = answers.took_ms()
        return [
            Row(f"{what}, {CLIENTS} callers", "1/s", len(took) / answers.seconds),
            _percentile(f"{what}, {CLIENTS} callers", took, 50),
            _percentile(f"{what}, {CLIENTS} callers", took, 99),
            Row(f"{what}, {CLIENTS} callers, refused", "", len(answers.status) - len(took)),
        ]

    def _run(self, queries: int, *, clients: int) -> Answers:
        """So many queries; 0 means as many as fit into `SECONDS`."""
        # Texts that the embedder has not seen: what its cache knows costs less.
        asked = [next(self._queries) for _ in range(queries or 10_000)]
        load = Closed(self._target, asked, clients, seconds=0.0 if queries else SECONDS)
        (answers,) = self._callers.run(load)
        # With sixteen callers some may be refused; one at a time never.
        if clients == 1 and answers.count(OK) < queries:
            raise RuntimeError(f"{queries - answers.count(OK)} requests failed: {answers.status}")
        return answers


def _percentile(
    what: str,
    took: Sequence[float],
    percent: int,
    target: str | None = None,
    note: str | None = None,
) -> Row:
    return Row(
        f"{what}, p{percent}",
        "ms",
        percentile(took, percent),
        target,
        note=note,
        samples=took,
        statistic=f"p{percent}",
    )


def _queries(path: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield json.dumps({"query": f"What does stage {number} of {path} cost?"}).encode()
