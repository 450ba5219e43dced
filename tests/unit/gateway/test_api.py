"""The border of the REST API: what is refused, how, and in which shape. No service runs behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings


@pytest.fixture
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    nowhere = {
        f"{name}_address": "127.0.0.1:1"
        for name in ("embedder", "retriever", "reranker", "generator", "ingester")
    }
    limits = {"max_request_bytes": 20_000, "max_upload_bytes": 100_000}
    app = build(GatewaySettings(**limits, **nowhere))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def problem(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "code", "message", "request_id", "retryable"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return dict(body["error"])


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"query": ""}, "query"),
        ({"query": "   \n"}, "query"),
        ({}, "query"),
        ({"query": "a\0b"}, "null character"),
        ({"query": "a" * 8_001}, "8000"),
        ({"query": 3}, "query"),
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "top_k": 10_000}, "RAGLAN_GATEWAY_MAX_TOP_K"),
        ({"query": "a", "topk": 3}, "topk"),
        ({"query": "a", "top_k": "3"}, "top_k"),
        ({"query": "a", "rerank": 0}, "rerank"),
        ({"query": "a", "mode": "psychic"}, "mode"),
        ({"query": "a", "timeout_ms": 0}, "timeout_ms"),
        ({"query": "a", "timeout_ms": 10**9}, "RAGLAN_GATEWAY_MAX_TIMEOUT_MS"),
        ({"query": "a", "collections": []}, "collections"),
        ({"query": "a", "collections": ["../etc"]}, "collections"),
        ({"query": "a", "filter": {"like": {"field": "x"}}}, "unknown filter operator 'like'"),
        ({"query": "a", "filter": {}}, "exactly one operator"),
        ({"query": "a", "filter": {"eq": {"field": "", "value": 1}}}, "field"),
        ({"query": "a", "filter": {"range": {"field": "x"}}}, "range"),
        ({"query": "a", "filter": {"in": {"field": "x", "values": []}}}, "values"),
    ],
)
async def test_a_wrong_query_is_refused_by_the_name_of_what_is_wrong(
    gateway: httpx.AsyncClient, body: dict[str, object], named: str
) -> None:
    for path in ("/v1/query", "/v1/search"):
        response = await gateway.post(path, json=body)
        error = problem(response)
        assert response.status_code == 422
        assert named in str(error["message"])
        assert not error["retryable"]


async def test_half_a_surrogate_pair_is_refused(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(
        "/v1/query",
        content=b'{"query": "a\\ud800b"}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    assert "surrogate" in str(problem(response)["message"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/query", '{"query": "x", "json_schema": {"title": "\\ud800"}}'),
        ("/v1/responses", '{"model": "raglan", "input": "x", "instructions": "\\ud800"}'),
        ("/v1/responses", '{"model": "raglan", "input": "x", "metadata": {"\\ud800": "x"}}'),
        ("/v1/vector_stores", '{"metadata": {"x": "\\ud800"}}'),
        (
            "/v1/vector_stores/a/files",
            '{"file_id": "file-000000000000000000000000", "attributes": {"\\ud800": 1}}',
        ),
    ],
)
async def test_half_a_pair_is_refused_in_what_is_only_passed_on(
    gateway: httpx.AsyncClient, path: str, body: str
) -> None:
    headers = {"content-type": "application/json"}
    response = await gateway.post(path, content=body, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert "surrogate" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "nested", ['{"a":' * 300 + "1" + "}" * 300, '{"a":' + "[" * 300 + "]" * 300 + "}"]
)
async def test_a_deeply_nested_schema_is_refused(gateway: httpx.AsyncClient, nested: str) -> None:
    headers = {"content-type": "application/json"}
    body = f'{{"query": "x", "json_schema": {nested}}}'
    response = await gateway.post("/v1/query", content=body, headers=headers)
    assert response.status_code == 422, response.text
    assert "nested more than 64 deep" in response.json()["error"]["message"]


async def test_no_tokens_are_no_answer(gateway: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "raglan", "messages": messages, "max_completion_tokens": 0}
    response = await gateway.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "max_completion_tokens"


async def test_a_deeply_nested_filter_is_refused(gateway: httpx.AsyncClient) -> None:
    filter_: dict[str, object] = {"exists": {"field": "x"}}
    for _ in range(300):
        filter_ = {"not": filter_}
    response = await gateway.post("/v1/query", json={"query": "a", "filter": filter_})
    assert response.status_code == 422
    problem(response)


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("/v1/query", "RAGLAN_GATEWAY_MAX_REQUEST_BYTES"),
        ("/v1/collections/default/documents", "RAGLAN_GATEWAY_MAX_UPLOAD_BYTES"),
    ],
)
async def test_a_large_body_is_refused_naming_limit_and_setting(
    gateway: httpx.AsyncClient, path: str, variable: str
) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1_000

    for content in (b" " * 200_000, unannounced()):
        response = await gateway.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert variable in str(problem(response)["message"])


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"documents": []}'])
async def test_a_body_that_holds_no_documents_is_refused(
    gateway: httpx.AsyncClient, body: bytes
) -> None:
    response = await gateway.post(
        "/v1/collections/default/documents",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    problem(response)


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"data": {"metadata": "{}"}, "files": {"other": b"x"}}, "no file"),
        ({"files": {"files": b"x", "more": b"x"}}, "'more'"),
        ({"data": {"metadata": "[]"}, "files": {"files": b"x"}}, "metadata"),
    ],
)
async def test_a_form_that_cannot_be_used_is_refused(
    gateway: httpx.AsyncClient, form: dict[str, Any], named: str
) -> None:
    response = await gateway.post("/v1/collections/default/documents", **form)
    assert response.status_code == 422
    assert named in str(problem(response)["message"])


@pytest.mark.parametrize("id_", ["../victim", "..", "/etc/passwd", "a\nb"])
async def test_a_document_id_that_walks_is_refused_at_submission_and_in_a_path(
    gateway: httpx.AsyncClient, id_: str
) -> None:
    documents = "/v1/collections/default/documents"
    body = {"documents": [{"id": id_, "text": "x"}]}
    assert (await gateway.post(documents, json=body)).status_code == 422
    path = f"{documents}/{quote(id_, safe='')}"
    response = await gateway.delete(httpx.URL(path.replace("..", "%2E%2E")))
    assert response.status_code == (404 if "\n" in id_ else 422)  # no path holds a line break


async def test_a_path_is_not_redirected_to_another(gateway: httpx.AsyncClient) -> None:
    response = await gateway.delete("/v1/collections/default/")
    assert response.status_code == 404
    assert "location" not in response.headers


async def test_an_unknown_route_has_the_envelope(gateway: httpx.AsyncClient) -> None:
    response = await gateway.get("/v1/nothing")
    assert response.status_code == 404
    assert problem(response)["type"] == "not_found"


async def test_a_mesh_that_is_down_is_503_with_retry_after(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post("/v1/query", json={"query": "a"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert problem(response)["message"] == "The retriever cannot be reached."


async def test_a_stream_that_fails_ends_in_an_error_event_never_in_text(
    gateway: httpx.AsyncClient,
) -> None:
    response = await gateway.post("/v1/query", json={"query": "a", "stream": True})
    names = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == ["start", "error"]


async def test_liveness_holds_and_readiness_names_what_is_missing(
    gateway: httpx.AsyncClient,
) -> None:
    assert (await gateway.get("/healthz")).status_code == 200
    async with asyncio.timeout(30):
        while (ready := await gateway.get("/readyz")).json()["dependencies"]["retriever"] != (
            "unreachable"
        ):
            await asyncio.sleep(0.01)
    assert ready.status_code == 503
    assert ready.json()["rung"] == "kept_answers"


async def test_startup_names_what_has_never_been_up(gateway: httpx.AsyncClient) -> None:
    started = await gateway.get("/startupz")
    assert started.status_code == 503
    assert started.json() == {
        "started": False,
        "waiting_for": ["embedder", "retriever", "reranker", "generator", "ingester"],
    }


async def test_a_given_request_id_comes_back(gateway: httpx.AsyncClient) -> None:
    response = await gateway.get("/healthz", headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
