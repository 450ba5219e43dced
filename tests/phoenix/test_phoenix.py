"""Traces in a real Phoenix: what its users see of a query."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import mesh_process
import ports
import pytest
from faults.process import Process

PHOENIX: Final = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
QUESTION: Final = "Which setting pins the reranker?"
ANSWER_PART: Final = "RAGLAN_RERANKER_DEVICE"
DOCUMENTS: Final = [
    {
        "id": f"note-{number}",
        "title": f"Note {number}",
        "text": f"The setting {ANSWER_PART} pins the reranker of machine {number} to a GPU.",
    }
    for number in range(1, 6)
]


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Phoenix that keeps its data in a folder of the test."""
    folder = tmp_path_factory.mktemp("phoenix")
    port = ports.free_port()
    server = Process(
        "phoenix",
        [str(PHOENIX), "serve"],
        {
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(ports.free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        },
        folder / "log",
        port,
    )
    server.start()
    url = f"http://{server.address}"
    try:
        mesh_process.until(
            lambda: httpx.get(f"{url}/healthz", timeout=5).is_success,
            within_s=120,
            what="Phoenix is up",
        )
        yield url
    finally:
        server.kill()


@contextmanager
def exporting(folder: Path, phoenix: str, **variables: str) -> Iterator[mesh_process.Mesh]:
    """A mesh of real models that sends its spans to Phoenix."""
    with mesh_process.running(folder, OTEL_EXPORTER_OTLP_ENDPOINT=phoenix, **variables) as mesh:
        with mesh.client() as client:
            client.post("/v1/collections", json={"name": "default"})
            job = mesh_process.ingest(client, "default", DOCUMENTS)
            assert job["status"] == "succeeded", job
        yield mesh


@pytest.fixture(scope="module")
def mesh(
    tmp_path_factory: pytest.TempPathFactory, phoenix: str, exported: dict[str, str]
) -> Iterator[mesh_process.Mesh]:
    folder = tmp_path_factory.mktemp("mesh") / "data"
    with exporting(folder, phoenix, RAGLAN_TRACE_CONTENT="1", **exported) as running:
        yield running


def spans_of(phoenix: str, trace_id: str) -> list[dict[str, Any]]:
    """What Phoenix has of a trace."""
    found = httpx.get(
        f"{phoenix}/v1/projects/default/spans",
        params={"trace_id": trace_id, "limit": 1000},
        timeout=30,
    )
    found.raise_for_status()
    return [span for span in found.json()["data"] if span["context"]["trace_id"] == trace_id]


def whole_trace(phoenix: str, trace_id: str) -> list[dict[str, Any]]:
    """The spans, once each has its parent and the root is there."""

    def complete() -> list[dict[str, Any]] | None:
        spans = spans_of(phoenix, trace_id)
        ids = {span["context"]["span_id"] for span in spans}
        orphans = [span for span in spans if span["parent_id"] and span["parent_id"] not in ids]
        has_root = any(span["parent_id"] is None for span in spans)
        kinds = {span["span_kind"] for span in spans}
        return spans if has_root and not orphans and "LLM" in kinds else None

    spans: list[dict[str, Any]] = mesh_process.until(complete, within_s=60, what="a whole trace")
    return spans


def root_of(spans: list[dict[str, Any]]) -> dict[str, Any]:
    (root,) = [span for span in spans if span["parent_id"] is None]
    return root


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_query_is_one_trace_with_its_steps_by_kind_and_its_documents(
    mesh: mesh_process.Mesh, phoenix: str, stream: bool
) -> None:
    body = {"query": QUESTION, "stream": stream}
    with mesh.client() as client:
        reply = client.post("/v1/query", json=body)
    answer = mesh_process.events(reply)[-2][1] if stream else reply.json()
    spans = whole_trace(phoenix, answer["trace_id"])
    kinds = {span["span_kind"] for span in spans}
    assert kinds >= {"CHAIN", "EMBEDDING", "RETRIEVER", "RERANKER", "LLM"}
    retrieved = next(span for span in spans if span["name"] == "retrieve")["attributes"]
    assert retrieved["retrieval.documents.0.document.id"].startswith("note-")
    assert ANSWER_PART in retrieved["retrieval.documents.0.document.content"]
    reranked = next(span for span in spans if span["name"] == "rerank")["attributes"]
    assert "reranker.output_documents.0.document.score" in reranked
    root = root_of(spans)["attributes"]
    assert root["input.value"] == QUESTION
    assert root["output.value"] == answer["answer"]
    assert ANSWER_PART in root["output.value"]


def test_a_search_shows_its_passages_as_output(mesh: mesh_process.Mesh, phoenix: str) -> None:
    with mesh.client() as client:
        reply = client.post("/v1/search", json={"query": QUESTION}).json()

    def root() -> dict[str, Any] | None:
        spans = spans_of(phoenix, reply["trace_id"])
        return next((span for span in spans if span["parent_id"] is None), None)

    found = mesh_process.until(root, within_s=60, what="the root span")
    assert found["attributes"]["output.value"].startswith(reply["passages"][0]["text"])


def test_verify_says_that_the_trace_is_elsewhere(mesh: mesh_process.Mesh, phoenix: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "raglan_cli", "verify", mesh.url, "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert run.returncode == 0, run.stdout
    assert checks["trace"]["result"] == checks["tracer"]["result"] == "skipped"
    assert "collector" in checks["trace"]["reason"]


def test_without_content_no_text_leaves_the_mesh(
    tmp_path: Path, phoenix: str, exported: dict[str, str]
) -> None:
    with exporting(tmp_path / "data", phoenix, **exported) as quiet, quiet.client() as client:
        trace_id = client.post("/v1/query", json={"query": QUESTION}).json()["trace_id"]
        spans = whole_trace(phoenix, trace_id)
    assert "output.value" not in root_of(spans)["attributes"]
    assert ANSWER_PART not in json.dumps(spans)


def test_a_picture_of_the_trace(mesh: mesh_process.Mesh, phoenix: str) -> None:
    """The page that docs/traces.md shows, made anew where PICTURE names a file and Chromium is."""
    with mesh.client() as client:
        trace_id = client.post("/v1/query", json={"query": QUESTION}).json()["trace_id"]
    whole_trace(phoenix, trace_id)
    page = httpx.get(f"{phoenix}/redirects/traces/{trace_id}", timeout=30, follow_redirects=False)
    assert page.is_redirect, page.text[:500]
    assert trace_id in page.headers["location"]
    if picture := os.environ.get("PICTURE"):
        _photograph(f"{phoenix}{page.headers['location']}", Path(picture))


def _photograph(url: str, picture: Path) -> None:
    subprocess.run(
        [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            "--window-size=1400,900",
            "--virtual-time-budget=15000",
            f"--screenshot={picture}",
            url,
        ],
        check=True,
        timeout=120,
        capture_output=True,
    )
