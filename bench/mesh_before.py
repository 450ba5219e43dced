"""`/v1/search` of this code beside that of an earlier commit, in turns.

`make bench-mesh ONLY=overhead BEFORE=60d4081`. The earlier code comes out of git and runs with the
libraries that are installed now, so that the two differ by Raglan alone.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import mesh_process
import null_mesh
import processes
from callers import OK, Target
from load import Closed, Generator, generator, percentile
from report import Row

ROOT: Final = Path(__file__).resolve().parent.parent
ROUNDS: Final = 6
QUERIES: Final = 250
_PATH: Final = "/v1/search"


@dataclass
class _Measured:
    """Searches of one mesh so far."""

    mesh: mesh_process.Mesh
    took_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def measure(self, callers: Generator, texts: list[bytes]) -> None:
        """Search for each of `texts`, one at a time."""
        target = Target("http", null_mesh.port(self.mesh), _PATH)
        spent = sum(null_mesh.cpu_seconds(self.mesh).values())
        (answers,) = callers.run(Closed(target, texts, 1))
        if answers.count(OK) < len(texts):
            raise RuntimeError(f"{len(texts) - answers.count(OK)} searches failed.")
        self.cpu_s += sum(null_mesh.cpu_seconds(self.mesh).values()) - spent
        self.took_ms += answers.took_ms()


def before(commit: str) -> list[Row]:
    """Return latency and processor time of a search, and those of `commit` as the peer's."""
    texts = (json.dumps({"query": f"What does stage {n} cost?"}).encode() for n in count(1))
    with (
        _source(commit) as path,
        null_mesh.running(
            PYTHONPATH=path, RAGLAN_GATEWAY_OTLP_PORT=str(processes.free_port())
        ) as earlier,
        null_mesh.running() as now,
        generator() as callers,
    ):
        for mesh in (earlier, now):
            _Measured(mesh).measure(callers, [next(texts) for _ in range(QUERIES)])
        both = _Measured(earlier), _Measured(now)
        for number in range(ROUNDS):
            for each in both if number % 2 else reversed(both):
                each.measure(callers, [next(texts) for _ in range(QUERIES)])
    peer, ours = both
    searches = ROUNDS * QUERIES
    name = f"commit {commit}, in turns"
    return [
        Row(
            f"{_PATH}, p50",
            "ms",
            percentile(ours.took_ms, 50),
            "ratio <= 0.85",
            percentile(peer.took_ms, 50),
            name,
            samples=ours.took_ms,
            statistic="p50",
        ),
        Row(
            f"{_PATH}, processor time",
            "ms",
            ours.cpu_s / searches * 1e3,
            None,
            peer.cpu_s / searches * 1e3,
            name,
        ),
    ]


@contextmanager
def _source(commit: str) -> Iterator[str]:
    """The packages of `commit` in a temporary folder; yields a PYTHONPATH with all of them."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit, "services", "cli"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield os.pathsep.join(map(str, [*Path(folder).glob("*/*/src"), Path(folder, "cli", "src")]))
