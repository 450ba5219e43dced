"""A whole mesh of null engines, as `raglan up` starts it: what is left to measure is the mesh."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import mesh_process
import processes

ENGINES = {
    "RAGLAN_EMBEDDER_ENGINE": "null",
    "RAGLAN_RETRIEVER_STORE": "null",
    "RAGLAN_RERANKER_ENGINE": "null",
    "RAGLAN_GENERATOR_ENGINE": "null",
}

Running: TypeAlias = AbstractContextManager[mesh_process.Mesh]


@contextmanager
def running(**variables: str) -> Iterator[mesh_process.Mesh]:
    """Start it, `variables` before those of the null engines; stop it at the end."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mesh_process.running(Path(folder) / "mesh", **ENGINES | variables) as mesh,
    ):
        yield mesh


def port(mesh: mesh_process.Mesh) -> int:
    """Of the gateway."""
    return int(mesh.url.rpartition(":")[2])


def cpu_seconds(mesh: mesh_process.Mesh) -> dict[str, float]:
    """Processor time that each service has taken so far."""
    return {each["service"]: processes.cpu_seconds(each["pid"]) for each in mesh.services()}


def degraded(mesh: mesh_process.Mesh) -> float:
    """Stages that have fallen back so far."""
    with mesh.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("raglan_gateway_degraded_total")
    )
