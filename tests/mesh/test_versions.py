"""Versions of documents: what was valid when, through a whole mesh."""

from __future__ import annotations

import time
from typing import Any

import httpx
import mesh_process
import pytest

QUESTION = "How many days of notice does the contract need?"
FIRST = "The contract with Harbour Logistics needs thirty days of notice."
SECOND = "The contract with Harbour Logistics needs ninety days of notice."
OTHER = "Invoices of the port are paid on the first Monday of a month."


def put(client: httpx.Client, collection: str, text: str, **fields: Any) -> None:
    document = {"id": "https://port/contract/versions", "text": text, **fields}
    job = mesh_process.ingest(client, collection, [document, {"id": "invoices", "text": OTHER}])
    assert job["status"] == "succeeded", job


def listed(client: httpx.Client, collection: str) -> list[dict[str, Any]]:
    path = f"/v1/collections/{collection}/versions/https://port/contract/versions"
    found: list[dict[str, Any]] = client.get(path).raise_for_status().json()["versions"]
    return found


def texts(client: httpx.Client, collection: str, **body: Any) -> set[str]:
    body = {"query": QUESTION, "collections": [collection], **body}
    reply = client.post("/v1/search", json=body)
    assert reply.status_code == 200, reply.text
    degraded = {each["stage"] for each in reply.json()["degraded"]}
    assert degraded <= {"profile"}  # of the collection, on a machine that is busy
    return {passage["text"] for passage in reply.json()["passages"]}


@pytest.fixture(scope="module")
def contracts(mesh: mesh_process.Mesh) -> str:
    """A collection with a document of three versions, the last like the first."""
    with mesh.client() as client:
        body = {"name": "versioned-contracts", "versions": {"max_versions": 5}}
        made = client.post("/v1/collections", json=body).raise_for_status().json()
        assert made["versions"] == {"max_versions": 5, "max_age_days": None}
        for text in (FIRST, SECOND, FIRST):
            put(client, "versioned-contracts", text)
            put(client, "versioned-contracts", text)  # unchanged: no version
            time.sleep(0.01)
    return "versioned-contracts"


def test_a_search_as_of_a_time_finds_what_was_valid_then(
    client: httpx.Client, contracts: str
) -> None:
    third, second, first = listed(client, contracts)
    assert [each["version"] for each in (first, second, third)] == [1, 2, 3]
    assert [first["valid_to"], second["valid_to"]] == [second["valid_from"], third["valid_from"]]
    assert third["valid_to"] is None
    assert texts(client, contracts) == {FIRST, OTHER}
    for mode in ("hybrid", "dense", "lexical"):
        then = {"mode": mode, "as_of": second["valid_from"], "expand_tokens": 500}
        assert texts(client, contracts, **then) - {OTHER} == {SECOND}
    assert texts(client, contracts, as_of=first["valid_from"]) >= {FIRST}
    assert texts(client, contracts, as_of="2020-01-01") == set()


def test_an_answer_as_of_a_time_quotes_what_was_valid_then(
    client: httpx.Client, contracts: str
) -> None:
    _, second, _first = listed(client, contracts)
    ask = {"query": QUESTION, "collections": [contracts]}
    for as_of, days in ((None, "thirty"), (second["valid_from"], "ninety")) * 2:
        reply = client.post("/v1/query", json={**ask, "as_of": as_of}).raise_for_status().json()
        assert f"{days} days" in reply["answer"]
        (cited,) = {each["document_id"] for each in reply["citations"]}
        assert cited == "https://port/contract/versions"
    chat = {
        "model": "raglan",
        "messages": [{"role": "user", "content": QUESTION}],
        "raglan": {"collections": [contracts], "as_of": second["valid_from"]},
    }
    found = client.post("/v1/chat/completions", json=chat).raise_for_status().json()
    assert "ninety days" in found["choices"][0]["message"]["content"]


def test_a_version_is_read_with_its_own_text(client: httpx.Client, contracts: str) -> None:
    path = f"/v1/collections/{contracts}/documents/https://port/contract/versions"
    read = {n: client.get(path, params={"version": n}).json() for n in (0, 1, 2, 3)}
    assert [read[n]["text"].strip() for n in read] == [FIRST, FIRST, SECOND, FIRST]
    assert [read[n]["chunks"][0]["text"] for n in read] == [FIRST, FIRST, SECOND, FIRST]
    assert client.get(path, params={"version": 4}).status_code == 404
    found = client.post(
        "/v1/search",
        json={"query": QUESTION, "collections": [contracts], "as_of": read[2]["valid_from"]},
    ).json()["passages"][0]
    assert found["version"] == 2
    assert found["text"] == read[2]["text"][found["start"] : found["end"]]


def test_a_time_is_refused_where_no_versions_are_kept(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "unversioned"}).raise_for_status()
    put(client, "unversioned", FIRST)
    put(client, "unversioned", SECOND)
    assert listed(client, "unversioned") == []
    assert texts(client, "unversioned") == {SECOND, OTHER}
    body = {"query": QUESTION, "collections": ["unversioned"], "as_of": "2026-01-01T00:00:00Z"}
    refused = client.post("/v1/search", json=body)
    assert refused.status_code == 409
    assert "keeps no versions" in refused.json()["error"]["message"]
    malformed = client.post("/v1/search", json={**body, "as_of": "yesterday"})
    assert malformed.status_code == 422


def test_deleting_a_document_deletes_its_versions(client: httpx.Client) -> None:
    body = {"name": "versions-gone", "versions": {"max_versions": 1}}
    client.post("/v1/collections", json=body).raise_for_status()
    for text in (OTHER, FIRST, SECOND):
        put(client, "versions-gone", text)
    second = listed(client, "versions-gone")[-1]
    assert second["version"] == 2  # the first was one too many
    deleted = client.delete(
        "/v1/collections/versions-gone/documents/https://port/contract/versions"
    )
    assert deleted.json()["deleted_chunks"] == 2
    assert texts(client, "versions-gone", as_of=second["valid_from"]) == {OTHER}
    assert client.get("/v1/collections/versions-gone").json()["chunks"] == 1
