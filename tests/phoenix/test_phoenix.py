"""Traces in a real Phoenix: what its users see of a query."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mesh_process
import pytest
from phoenix.phoenix_server import QUESTION, SETTING, exporting, serving, spans_of, whole_trace


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("phoenix")) as url:
        yield url


@pytest.fixture(scope="module")
def mesh(
    tmp_path_factory: pytest.TempPathFactory, phoenix: str, exported: dict[str, str]
) -> Iterator[mesh_process.Mesh]:
    folder = tmp_path_factory.mktemp("mesh") / "data"
    with exporting(folder, phoenix, RAGLAN_TRACE_CONTENT="1", **exported) as running:
        yield running


def root_of(spans: list[dict[str, Any]]) -> dict[str, Any]:
    (root,) = [span for span in spans if span["parent_id"] is None]
    return root


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_query_is_one_trace_with_its_steps_by_kind_and_its_documents(
    mesh: mesh_process.Mesh, phoenix: str, stream: bool
) -> None:
    with mesh.client() as client:
        reply = client.post("/v1/query", json={"query": QUESTION, "stream": stream})
    answer = mesh_process.events(reply)[-2][1] if stream else reply.json()
    spans = whole_trace(phoenix, answer["trace_id"])
    kinds = {span["span_kind"] for span in spans}
    assert kinds >= {"CHAIN", "EMBEDDING", "RETRIEVER", "RERANKER", "LLM"}
    retrieved = next(span for span in spans if span["name"] == "retrieve")["attributes"]
    assert retrieved["retrieval.documents.0.document.id"].startswith("note-")
    assert SETTING in retrieved["retrieval.documents.0.document.content"]
    reranked = next(span for span in spans if span["name"] == "rerank")["attributes"]
    assert "reranker.output_documents.0.document.score" in reranked
    root = root_of(spans)["attributes"]
    assert root["input.value"] == QUESTION
    assert root["output.value"] == answer["answer"]
    assert SETTING in root["output.value"]


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
    assert SETTING not in json.dumps(spans)
