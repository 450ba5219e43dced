"""A mesh that has answered, failed and degraded, for everything that looks at its metrics."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import mesh_process
import pytest

ENGINES = {
    "RAGLAN_EMBEDDER_ENGINE": "null",
    "RAGLAN_RERANKER_ENGINE": "null",
    "RAGLAN_GENERATOR_ENGINE": "null",
}
DOCUMENTS = [
    {"id": f"d{n}", "title": f"Stage {n}", "text": f"Stage {n} costs {n}. " * 40} for n in range(8)
]


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mesh_process.Mesh]:
    """A mesh of null engines over a real index: queried, uploaded to, degraded, in error, left."""
    with mesh_process.running(tmp_path_factory.mktemp("mesh") / "data", **ENGINES) as running:
        with running.client() as client:
            client.post("/v1/collections", json={"name": "default"})
            job = mesh_process.ingest(client, "default", DOCUMENTS)
            assert job["status"] == "succeeded", job
            ask = {"query": "What does stage 3 cost?"}
            for _ in range(20):
                assert client.post("/v1/search", json=ask).status_code == 200
                assert client.post("/v1/query", json=ask).status_code == 200
            stream = client.post("/v1/query", json={**ask, "stream": True})
            assert mesh_process.events(stream)[-1][0] == "done"
            with _stopped(running.pid("reranker")):
                reply = client.post("/v1/search", json=ask).json()
            assert [each["stage"] for each in reply["degraded"]] == ["rerank"], reply
            with _stopped(running.pid("retriever")):
                late = client.post("/v1/search", json={**ask, "query": "new", "timeout_ms": 300})
            assert late.status_code == 504, late.text
            with _stopped(running.pid("generator")), pytest.raises(httpx.ReadTimeout):
                client.post("/v1/query", json={**ask, "stream": True}, timeout=0.5)
        yield running


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
