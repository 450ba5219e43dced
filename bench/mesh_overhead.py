"""What the mesh adds to a query: every service as a process, with engines that cost nothing.

`make bench-mesh ONLY=overhead`. The caller is a process of its own over plain HTTP/1.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import mesh_process
import null_mesh
from callers import OK, Target
from load import Answers, Closed, Generator, generator, percentile
from report import Row

WARM_UP = 300
QUERIES = 1_500
CLIENTS = 16
SECONDS = 10.0

_NOTE = (
    "the whole of a request as its client sees it, nothing subtracted: the engines compute nothing"
)


def overhead() -> list[Row]:
    """Latency for one caller, and how many requests a second sixteen get."""
    rows: list[Row] = []
    with null_mesh.running() as mesh, generator() as callers:
        for path in ("/v1/search", "/v1/query"):
            measure = _Measured(mesh, callers, path)
            rows += measure.alone()
            rows += measure.together()
        if fell_back := null_mesh.degraded(mesh):
            raise RuntimeError(f"{fell_back:.0f} stages fell back: not the whole mesh was measured")
    return rows


class _Measured:
    """One route of a running mesh."""

    def __init__(self, mesh: mesh_process.Mesh, callers: Generator, path: str) -> None:
        self._mesh = mesh
        self._callers = callers
        self._target = Target("http", null_mesh.port(mesh), path)
        self._queries = _queries(path)

    def alone(self) -> list[Row]:
        """One caller, one request at a time."""
        self._run(WARM_UP, clients=1)
        before = null_mesh.cpu_seconds(self._mesh)
        took = self._run(QUERIES, clients=1).took_ms()
        after = null_mesh.cpu_seconds(self._mesh)
        spent = {name: (after[name] - before[name]) / QUERIES * 1e3 for name in after}
        path = self._target.path
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
        return [
            Row(f"{path}, added, p50", "ms", percentile(took, 50), "<= 6", note=_NOTE),
            Row(f"{path}, added, p99", "ms", percentile(took, 99), "<= 20"),
            Row(f"{path}, processor time a request", "ms", sum(spent.values()), note=parts),
        ]

    def together(self) -> list[Row]:
        """Sixteen callers without a pause."""
        answers = self._run(0, clients=CLIENTS)
        rate = len(answers.done) / answers.seconds
        took = answers.took_ms()
        path = self._target.path
        return [
            Row(f"{path}, {CLIENTS} callers", "1/s", rate),
            Row(f"{path}, {CLIENTS} callers, p50", "ms", percentile(took, 50)),
            Row(f"{path}, {CLIENTS} callers, p99", "ms", percentile(took, 99)),
        ]

    def _run(self, queries: int, *, clients: int) -> Answers:
        """So many queries; 0 means as many as fit into `SECONDS`."""
        # Texts that the embedder has not seen: what its cache knows costs less.
        asked = [next(self._queries) for _ in range(queries or 10_000)]
        load = Closed(self._target, asked, clients, seconds=0.0 if queries else SECONDS)
        (answers,) = self._callers.run(load)
        if failed := len(answers.status) - answers.count(OK):
            raise RuntimeError(f"{failed} requests failed: {set(answers.status)}")
        return answers


def _queries(path: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield json.dumps({"query": f"What does stage {number} of {path} cost?"}).encode()
