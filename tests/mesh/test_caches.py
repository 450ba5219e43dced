"""Caches and limits of the gateway as it comes, with the services behind it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import mesh_process

QUESTION = "How often is pump number 7 maintained?"


def ingest(client: httpx.Client, weeks: int) -> None:
    """Say of the pump how often it is maintained, and wait until that can be found."""
    document = {"id": "pump", "text": f"Pump number 7 is maintained every {weeks} weeks."}
    reply = client.post("/v1/collections/default/documents", json={"documents": [document]})
    job = reply.raise_for_status().json()["job_id"]
    while (status := client.get(f"/v1/jobs/{job}").json()["status"]) in ("queued", "running"):
        time.sleep(0.05)
    assert status == "succeeded"


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post("/v1/query", json={"query": QUESTION, **more}).raise_for_status()


def events(reply: httpx.Response) -> list[str]:
    """Names of the events of a stream."""
    lines = reply.text.splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("event: ")]


def test_a_repeated_question_is_cached_until_its_documents_change(tmp_path: Path) -> None:
    limit = {
        "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": "100000",
        "RAGLAN_GATEWAY_SEMANTIC_CACHE_SIMILARITY": "0.9",
    }
    with (
        mesh_process.running(tmp_path / "mesh", cached=True, **limit) as mesh,
        mesh.client() as client,
    ):
        mesh_process.until(
            lambda: client.get("/v1/collections/default").status_code == 200,
            within_s=60,
            what="the default collection is there",
        )
        ingest(client, 10)
        stream = ask(client, stream=True)
        again, replayed = ask(client), ask(client, stream=True)
        assert set(again.json()["cached"]) == {"answer"}
        assert "10 weeks" in again.json()["answer"]
        assert again.headers["age"] == "0"
        assert '"answer-requests";r=' in again.headers["ratelimit"]
        assert events(replayed) == events(stream)
        assert again.json().keys() == ask(client, max_tokens=500).json().keys()
        reworded = {"query": "Tell me how frequently pump number 7 is maintained"}
        similar = client.post("/v1/query", json=reworded).raise_for_status()
        assert similar.json()["similar"]["question"] == QUESTION
        assert similar.json()["answer"] == again.json()["answer"]
        assert set(similar.json()["cached"]) == {"semantic"}
        assert similar.headers["age"].isdecimal()
        assert events(ask(client, **reworded, stream=True)) == events(stream)
        other = {"query": "Tell me how frequently pump number 8 is maintained"}
        assert client.post("/v1/query", json=other).raise_for_status().json()["similar"] is None
        ingest(client, 12)
        changed = ask(client).json()
        assert "12 weeks" in changed["answer"]
        assert set(changed["cached"]) == {"embedding"}
        client.delete("/v1/collections/default/documents/pump").raise_for_status()
        assert "12 weeks" not in ask(client).json()["answer"]
