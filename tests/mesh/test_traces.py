"""Traces of a running mesh, as its users get them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import mesh_process
import pytest
from mesh_process import Mesh, until

COLLECTION = "traced"


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> Iterator[httpx.Client]:
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": COLLECTION})
        texts = ("A hedge is a second call.", "A retry is a later call.", "A breaker opens.")
        documents = [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)]
        mesh_process.ingest(client, COLLECTION, documents)
        yield client


def whole(client: httpx.Client, trace_id: str) -> dict[str, Any]:
    """The trace once all of its spans have ended."""

    def found() -> dict[str, Any] | None:
        trace: dict[str, Any] = client.get(f"/v1/traces/{trace_id}").json()
        return trace if trace.get("complete") else None

    trace: dict[str, Any] = until(found, within_s=15, what=f"trace {trace_id} is complete")
    return trace


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_one_trace_through_every_service(client: httpx.Client, stream: bool) -> None:
    asked = {"query": "What is a hedge?", "collections": [COLLECTION], "stream": stream}
    reply = client.post("/v1/query", json=asked)
    final = dict(mesh_process.events(reply))["final"] if stream else reply.json()
    assert reply.headers["traceparent"].split("-")[1] == final["trace_id"]
    spans = whole(client, final["trace_id"])["spans"]
    by_id = {span["span_id"]: span for span in spans}
    roots = [span for span in spans if span["parent_span_id"] not in by_id]
    assert [(root["service"], root["name"]) for root in roots] == [("gateway", "POST /v1/query")]
    assert {span["service"] for span in spans} == {
        "gateway", "embedder", "retriever", "reranker", "generator",
    }  # fmt: skip
    assert {span["status"] for span in spans} <= {"ok", "unset"}


def test_no_span_holds_what_was_asked_found_or_answered(client: httpx.Client) -> None:
    query = "What is a hedge, Mrs Miller?"
    answered = client.post("/v1/query", json={"query": query, "collections": [COLLECTION]}).json()
    told = [query, answered["answer"], *(each["text"] for each in answered["passages"])]
    shown = json.dumps(whole(client, answered["trace_id"]), ensure_ascii=False)
    assert [text for text in told if text in shown] == []
    assert "Miller" not in shown


def test_no_span_quotes_a_request_that_is_refused(client: httpx.Client) -> None:
    reply = client.post("/v1/query", json={"query": "x", "mode": "as Mrs Miller likes it"})
    assert "Miller" in reply.text
    trace_id = reply.headers["traceparent"].split("-")[1]
    assert "Miller" not in json.dumps(whole(client, trace_id))


def test_what_fails_is_kept_and_listed(client: httpx.Client) -> None:
    reply = client.post("/v1/query", json={"query": "x", "collections": ["missing"]})
    trace_id = reply.headers["traceparent"].split("-")[1]

    def listed() -> list[dict[str, Any]]:
        kept = client.get("/v1/traces", params={"status": 404}).json()["traces"]
        return [trace for trace in kept if trace["trace_id"] == trace_id]

    [trace] = until(listed, within_s=15, what="the trace is listed")
    assert trace["reasons"] == ["refused"]
    assert trace["route"] == "/v1/query"


def test_a_callers_trace_goes_on_through_the_mesh(client: httpx.Client) -> None:
    trace_id, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace_id}-{caller}-01"}
    asked = {"query": "retry", "collections": [COLLECTION]}
    reply = client.post("/v1/search", json=asked, headers=headers)
    assert reply.json()["trace_id"] == trace_id
    trace = whole(client, trace_id)
    assert "wanted" in trace["reasons"]
    first = next(span for span in trace["spans"] if span["name"] == "POST /v1/search")
    assert first["parent_span_id"] == caller


def test_an_ingestion_is_one_trace_until_its_job_has_ended(client: httpx.Client) -> None:
    documents = [{"id": f"later{n}", "text": f"Note {n}."} for n in range(3)]
    path = f"/v1/collections/{COLLECTION}/documents"
    reply = client.post(path, json={"documents": documents})
    mesh_process.finished(client, reply.json()["job_id"])
    trace = whole(client, reply.headers["traceparent"].split("-")[1])
    assert "job" in trace["reasons"]
    assert {"gateway", "ingester", "embedder", "retriever"} <= {
        span["service"] for span in trace["spans"]
    }
    stored = [span["attributes"] for span in trace["spans"] if span["name"] == "index.upsert"]
    assert sum(said["raglan.batch.size"] for said in stored) == len(documents)


def test_reading_and_deleting_a_document_shows_the_engine(client: httpx.Client) -> None:
    mesh_process.ingest(client, COLLECTION, [{"id": "gone", "text": "Soon gone."}])
    path = f"/v1/collections/{COLLECTION}/documents/gone"
    for method, operation in (("GET", "fetch"), ("DELETE", "delete")):
        reply = client.request(method, path)
        assert reply.is_success
        trace = whole(client, reply.headers["traceparent"].split("-")[1])
        (engine,) = [span for span in trace["spans"] if span["name"] == f"index.{operation}"]
        assert engine["attributes"]["db.operation.name"] == operation
        assert engine["attributes"]["db.response.returned_rows"] == 1


def test_an_unknown_trace_is_a_clear_404(client: httpx.Client) -> None:
    reply = client.get(f"/v1/traces/{'0a' * 16}")
    assert reply.status_code == 404
    assert "0a0a" in reply.json()["error"]["message"]
