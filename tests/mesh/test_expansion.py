"""Passages joined with their neighbours, through a whole mesh."""

from __future__ import annotations

from typing import Any

import httpx
import mesh_process
import pytest

PARAGRAPHS = [
    f"Pump {number} was inspected by team {number % 7} in hall {number % 5}. The {part} was worn "
    f"and had to be replaced before the {part} of the next pump could be looked at."
    for number, part in enumerate(["seal", "valve", "shaft", "rotor", "casing", "gasket"] * 4)
]
GUIDE = "# Inspections\n\n" + "\n\n".join(PARAGRAPHS)
ASKED = "Who inspected pump 9?"


def send(
    client: httpx.Client, collection: str, documents: list[dict[str, Any]], **how: Any
) -> None:
    body = {"name": collection, "chunking": {"max_chars": 400, **how}}
    client.post("/v1/collections", json=body).raise_for_status()
    path = f"/v1/collections/{collection}/documents"
    made = client.post(path, json={"documents": documents}).raise_for_status().json()
    assert mesh_process.finished(client, made["job_id"])["status"] == "succeeded"


@pytest.fixture(scope="module")
def guides(mesh: mesh_process.Mesh) -> str:
    document = {"id": "guide", "title": "Pumps", "text": GUIDE, "media_type": "text/markdown"}
    with mesh.client() as client:
        send(client, "guides", [document])
        send(client, "sections", [document], strategy="parent", max_chars=1_200)
        return str(client.get("/v1/collections/guides/documents/guide").json()["text"])


def search(client: httpx.Client, collection: str, **body: Any) -> list[dict[str, Any]]:
    body = {"query": ASKED, "collections": [collection], "top_k": 3, **body}
    reply = client.post("/v1/search", json=body).raise_for_status().json()
    assert reply["degraded"] == []
    passages: list[dict[str, Any]] = reply["passages"]
    return passages


def test_passages_are_joined_with_their_neighbours_within_the_budget(
    client: httpx.Client, guides: str
) -> None:
    plain, expanded = search(client, "guides"), search(client, "guides", expand_tokens=2_000)
    assert [each["chunk_ids"] for each in plain] == [[each["chunk_id"]] for each in plain]
    assert expanded[0]["chunk_id"] == plain[0]["chunk_id"]
    assert len(expanded[0]["chunk_ids"]) >= 3
    assert plain[0]["text"] in expanded[0]["text"]
    for each in expanded:
        assert each["text"] == guides[each["start"] : each["end"]]
        assert not set(each["chunk_ids"]) & {
            id_ for other in expanded if other is not each for id_ in other["chunk_ids"]
        }
    added = sum(len(e["text"]) for e in expanded) - sum(len(p["text"]) for p in plain)
    few = search(client, "guides", expand_tokens=120)
    assert 0 <= sum(len(e["text"]) for e in few) - sum(len(p["text"]) for p in plain) < added


def test_small_chunks_of_parent_are_answered_with_their_section(
    client: httpx.Client, guides: str
) -> None:
    alone = search(client, "sections", expand_tokens=0)
    sections = search(client, "sections")
    assert max(len(each["text"]) for each in alone) <= 300
    assert len(sections[0]["text"]) > 600
    assert sections[0]["text"] == guides[sections[0]["start"] : sections[0]["end"]]
    assert len(sections) <= len(alone)


def test_citations_of_joined_passages_name_the_chunk_and_are_exact(
    client: httpx.Client, guides: str
) -> None:
    for collection, how in (("guides", {"expand_tokens": 4_000}), ("sections", {})):
        body = {"query": ASKED, "collections": [collection], **how}
        reply = client.post("/v1/query", json=body).raise_for_status().json()
        assert reply["citations"]
        assert "expand" in reply["timings_ms"]
        chunks = client.get(f"/v1/collections/{collection}/documents/guide").json()["chunks"]
        spans = {each["chunk_id"]: (each["start"], each["end"]) for each in chunks}
        for cited in reply["citations"]:
            assert cited["quote"] == guides[cited["start"] : cited["end"]]
            start, end = spans[cited["chunk_id"]]
            assert (cited["chunk_start"], cited["chunk_end"]) == (start, end)
            assert start <= cited["start"] < end


def test_more_tokens_than_the_limit_are_refused(client: httpx.Client, guides: str) -> None:
    body = {"query": ASKED, "collections": ["guides"], "expand_tokens": 16_001}
    refused = client.post("/v1/search", json=body)
    assert refused.status_code == 422
    assert "RAGLAN_GATEWAY_MAX_EXPAND_TOKENS" in refused.json()["error"]["message"]
