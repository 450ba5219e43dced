"""Bulk ingestion by a Ray cluster on this machine beside `raglan ingest` of the same files."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import mesh_process
import ray_cluster
from mesh_process import Mesh
from ray_cluster import Cluster
from report import Row

DOCUMENTS: Final = 500
_COMMAND_S: Final = 900
_NO_CACHE: Final = {"RAGLAN_EMBEDDER_CACHE_MB": "0"}
"""The same texts are embedded again in each round."""


def bulk() -> list[Row]:
    """All rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "scifact")
        with mesh_process.running(folder / "mesh", **_NO_CACHE) as mesh:
            plain = DOCUMENTS / _seconds(mesh, "ingest", folder / "scifact", "plain")
            rows = []
            for workers in (1, 2):
                with ray_cluster.running(nodes=workers) as cluster:
                    rows += _rows(mesh, folder, cluster, workers, plain)
            return rows


def _rows(mesh: Mesh, folder: Path, cluster: Cluster, workers: int, plain: float) -> Iterator[Row]:
    manifest = folder / f"{workers}.jsonl"
    options = ("--ray", cluster.address, "--manifest", str(manifest), "--data", str(mesh.data))
    collection = f"bulk{workers}"
    seconds = _seconds(mesh, "bulk", folder / "scifact", collection, *options, **cluster.variables)
    what = f"{DOCUMENTS:,} abstracts by raglan bulk, workers: {workers}"
    note = "one machine for mesh and workers; with the start of Ray's actors"
    yield Row(what, "documents/s", DOCUMENTS / seconds, None, plain, "raglan ingest", note)
    again = _seconds(mesh, "bulk", folder / "scifact", collection, *options, **cluster.variables)
    yield Row(f"the same again, workers: {workers}", "s", again, note="nothing is read")


def _write(folder: Path) -> None:
    folder.mkdir()
    corpus = Path(os.environ["EVAL_DATA_DIR"]) / "scifact" / "corpus.jsonl"
    with corpus.open(encoding="utf-8") as lines:
        for line in itertools.islice(lines, DOCUMENTS):
            document = json.loads(line)
            file = folder / f"{document['_id']}.txt"
            file.write_text(f"{document['title']}\n\n{document['text']}\n", encoding="utf-8")
            os.utime(file, (1e9, 1e9))


def _seconds(
    mesh: Mesh, command: str, folder: Path, collection: str, *options: str, **variables: str
) -> float:
    began = time.monotonic()
    given = [str(folder), "--collection", collection, "--url", mesh.url, *options]
    subprocess.run(
        [sys.executable, "-m", "raglan_cli", command, *given],
        check=True,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        timeout=_COMMAND_S,
    )
    return time.monotonic() - began
