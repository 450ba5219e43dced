"""Documents in, a cited answer out: the whole mesh over HTTP, real models, real index."""

from __future__ import annotations

import httpx
import mesh_process
import pytest

GUIDE = """# Pinning services

Every model service runs on one device. The reranker runs on the second GPU when
RAGLAN_RERANKER_DEVICE is set to cuda:1. The embedder stays on the first.

# Retry budgets

Retries are limited to ten percent of the requests. The budget has a floor of three a second.
"""
TIDES = "Tides are caused by the gravity of the Moon and the Sun. A tide turns twice a day."
DOCUMENTS = [
    {"id": "guide", "title": "Guide", "text": GUIDE, "metadata": {"lang": "en", "year": 2024}},
    {"id": "tides", "title": "Tides", "text": TIDES, "metadata": {"lang": "en", "year": 1999}},
    {"id": "ebbe", "title": "Ebbe", "text": "Ebbe und Flut.", "metadata": {"lang": "de"}},
]
EN, DE = {"field": "lang", "value": "en"}, {"field": "lang", "value": "de"}
QUESTION = "How do I run the reranker on the second GPU?"


@pytest.fixture
def filled(client: httpx.Client, collection: str) -> str:
    job = mesh_process.ingest(client, collection, DOCUMENTS)
    assert job["status"] == "succeeded", job
    return collection


def test_a_question_gets_an_answer_whose_quotes_stand_in_the_documents(
    client: httpx.Client, filled: str
) -> None:
    reply = client.post("/v1/query", json={"query": QUESTION, "collections": [filled]}).json()
    assert set(reply) == {
        "id", "answer", "citations", "passages", "confidence", "confidence_parts", "groundedness",
        "claims", "unread_chunk_ids", "degraded", "usage", "timings_ms", "model", "trace_id",
        "cached", "standalone_question", "thinking",
        "finish_reason", "abstained", "collections", "similar", "strategy", "understanding",
    }  # fmt: skip
    assert "cuda:1" in reply["answer"]
    assert reply["degraded"] == []
    assert reply["citations"]
    for citation in reply["citations"]:
        assert f"[{citation['marker']}]" in reply["answer"]
        path = f"/v1/collections/{filled}/documents/{citation['document_id']}"
        text = client.get(path).json()["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert citation["collection"] == filled
        assert (
            citation["chunk_start"] <= citation["start"] < citation["end"] <= citation["chunk_end"]
        )
    stages = {"total", "embed", "retrieve", "rerank", "generate", "first_token"}
    assert stages <= set(reply["timings_ms"])


def test_a_stream_tells_the_same_as_the_reply(client: httpx.Client, filled: str) -> None:
    body = {"query": QUESTION, "collections": [filled]}
    whole = client.post("/v1/query", json=body).json()
    events = mesh_process.events(client.post("/v1/query", json=body | {"stream": True}))
    names = [name for name, _ in events]
    assert names[:2] == ["start", "sources"]
    assert names[-2:] == ["final", "done"]
    assert set(names[2:-2]) == {"delta", "citation"}
    final = events[-2][1]
    assert final["answer"] == whole["answer"]
    assert "".join(data["text"] for name, data in events if name == "delta") == whole["answer"]
    assert [data for name, data in events if name == "citation"] == final["citations"]


def test_a_question_that_nothing_answers_is_said_to_be_so(
    client: httpx.Client, filled: str
) -> None:
    body = {"query": "Which enzyme unwinds DNA during replication?", "collections": [filled]}
    reply = client.post("/v1/query", json=body).json()
    assert reply["answer"] == "The documents do not answer this."
    assert reply["citations"] == []


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("rerank", [True, False])
def test_every_mode_finds_the_passage(
    client: httpx.Client, filled: str, mode: str, rerank: bool
) -> None:
    body = {"query": "gravity of the moon", "collections": [filled], "mode": mode, "rerank": rerank}
    found = client.post("/v1/search", json=body).json()
    assert set(found) == {
        *("passages", "degraded", "timings_ms", "trace_id", "cached", "collections", "strategy"),
    }
    best = found["passages"][0]
    assert best["document_id"] == "tides"
    assert best["rank"] == 1
    legs = {"hybrid": {"dense", "lexical"}, "dense": {"dense"}, "lexical": {"lexical"}}[mode]
    assert legs <= {name for name, score in best["scores"].items() if score is not None}


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"eq": {"field": "lang", "value": "de"}}, {"ebbe"}),
        ({"ne": {"field": "lang", "value": "de"}}, {"guide", "tides"}),
        ({"in": {"field": "year", "values": [1999, 2000]}}, {"tides"}),
        ({"range": {"field": "year", "gte": 2000}}, {"guide"}),
        ({"exists": {"field": "year"}}, {"guide", "tides"}),
        ({"not": {"exists": {"field": "year"}}}, {"ebbe"}),
        (
            {"and": [{"eq": EN}, {"range": {"field": "year", "lt": 2000}}]},
            {"tides"},
        ),
        (
            {"or": [{"eq": DE}, {"eq": {"field": "year", "value": 2024}}]},
            {"ebbe", "guide"},
        ),
    ],
)  # fmt: skip
def test_filters_choose_by_metadata(
    client: httpx.Client, filled: str, filter_: dict[str, object], expected: set[str]
) -> None:
    body = {"query": "tide", "collections": [filled], "filter": filter_, "mode": "dense"}
    passages = client.post("/v1/search", json=body).json()["passages"]
    assert {passage["document_id"] for passage in passages} == expected


def test_several_collections_are_searched_together(client: httpx.Client, filled: str) -> None:
    other = f"{filled}-b"[:64]
    client.post("/v1/collections", json={"name": other})
    mesh_process.ingest(
        client, other, [{"id": "moon", "text": "The Moon orbits the Earth. Its gravity pulls."}]
    )
    body = {"query": "gravity of the Moon", "collections": [filled, other]}
    passages = client.post("/v1/search", json=body).json()["passages"]
    assert {"moon", "tides"} <= {passage["document_id"] for passage in passages}


def test_the_same_bytes_again_are_not_embedded_again(client: httpx.Client, filled: str) -> None:
    job = mesh_process.ingest(client, filled, DOCUMENTS)
    assert (job["status"], job["unchanged"]) == ("succeeded", 3)
    assert client.get(f"/v1/collections/{filled}").json()["documents"] == 3


def test_new_bytes_replace_the_old_ones_without_a_trace(client: httpx.Client, filled: str) -> None:
    mesh_process.ingest(client, filled, [{"id": "tides", "text": "Penguins live in the south."}])
    found = client.post(
        "/v1/search", json={"query": "gravity of the Moon", "collections": [filled]}
    ).json()
    texts = [passage["text"] for passage in found["passages"]]
    assert not [text for text in texts if "gravity" in text]
    assert [text for text in texts if "Penguins" in text]


def test_a_deleted_document_is_gone_everywhere(client: httpx.Client, filled: str) -> None:
    path = f"/v1/collections/{filled}/documents/tides"
    assert client.delete(path).json()["deleted_chunks"] >= 1
    assert client.get(path).status_code == 404
    found = client.post("/v1/search", json={"query": "tides", "collections": [filled]}).json()
    assert "tides" not in {passage["document_id"] for passage in found["passages"]}


def test_documents_are_listed_a_page_at_a_time(client: httpx.Client, filled: str) -> None:
    path = f"/v1/collections/{filled}/documents"
    first = client.get(path, params={"limit": 2}).json()
    rest = client.get(path, params={"limit": 2, "after": first["next_after"]}).json()
    ids = [document["id"] for document in first["documents"] + rest["documents"]]
    assert ids == ["ebbe", "guide", "tides"]
    assert rest["next_after"] is None


def test_a_document_shows_its_text_and_its_chunks(client: httpx.Client, filled: str) -> None:
    document = client.get(f"/v1/collections/{filled}/documents/guide").json()
    assert document["metadata"] == {"lang": "en", "year": 2024}
    assert document["title"] == "Guide"
    assert document["chunks"]
    for chunk in document["chunks"]:
        assert document["text"][chunk["start"] : chunk["end"]] == chunk["text"]


def test_a_deleted_collection_is_gone_with_its_documents(client: httpx.Client, filled: str) -> None:
    assert client.delete(f"/v1/collections/{filled}").json()["deleted_chunks"] >= 3
    assert client.get(f"/v1/collections/{filled}").status_code == 404
    assert client.get(f"/v1/collections/{filled}/documents").status_code == 404
    assert client.post("/v1/collections", json={"name": filled}).status_code == 201
    assert client.get(f"/v1/collections/{filled}/documents").json()["documents"] == []


def test_a_job_can_be_followed_to_its_end(client: httpx.Client, filled: str) -> None:
    reply = client.post(
        f"/v1/collections/{filled}/documents",
        json={"documents": [{"id": "new", "text": "Something new."}]},
    )
    events = mesh_process.events(client.get(f"/v1/jobs/{reply.json()['job_id']}/events"))
    assert [name for name, _ in events][-2:] == ["job", "done"]
    assert events[-2][1]["status"] == "succeeded"


def test_status_names_every_process_and_what_it_runs(client: httpx.Client) -> None:
    services = {s["service"]: s for s in client.get("/v1/status").json()["services"]}
    assert {s["state"] for s in services.values()} == {"serving"}
    assert set(services) == {
        "gateway", "embedder", "retriever", "reranker", "generator", "ingester",
        "tracer",
    }  # fmt: skip
    assert len({s["pid"] for s in services.values()}) == 7
    assert services["embedder"]["dimension"] == 384


def test_metrics_count_requests_and_stages(client: httpx.Client, filled: str) -> None:
    client.post("/v1/search", json={"query": "tide", "collections": [filled]})
    text = client.get("/metrics").text
    assert 'raglan_gateway_request_duration_seconds_count{method="POST",route="/v1/search"' in text
    assert 'raglan_gateway_stage_duration_seconds_count{stage="retrieve",status="OK"}' in text
