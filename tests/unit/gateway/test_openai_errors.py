"""Errors of OpenAI's routes: the client's own form, whatever refused the request."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gateway_serving
import httpx
import pytest
from raglan_gateway import error_envelopes
from raglan_gateway.api import schemas, sse
from raglan_gateway.api.openai import chat_replies, response_replies
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

ADMIN = "0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"
ASKED = {"model": "raglan", "messages": [{"role": "user", "content": "Where?"}]}


@asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = build(GatewaySettings(**(gateway_serving.NOWHERE | {"admin_key": ADMIN} | options)))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://127.0.0.1:8080",
            headers={"Authorization": f"Bearer {ADMIN}"},
        ) as client,
    ):
        yield client


def error(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a reply, which has OpenAI's form."""
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    found: dict[str, Any] = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["message"]
    return found


async def test_a_wrong_body_is_400() -> None:
    async with gateway() as client:
        wrong = error(await client.post(CHAT, json=ASKED | {"messages": 5}), 400)
        assert (wrong["type"], wrong["param"]) == ("invalid_request_error", "messages")
        broken = error(await client.post(CHAT, content=b"{", headers=_json()), 400)
        assert broken["code"] == "invalid_value"
        path = error(await client.get("/v1/vector_stores/a%20b"), 400)
        assert path["param"] == "store_id"


async def test_a_key_that_is_missing_wrong_or_in_the_query_string_is_401() -> None:
    async with gateway() as client:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer sk-other"}):
            found = error(await client.post(CHAT, json=ASKED, headers=headers), 401)
            assert (found["type"], found["code"]) == ("authentication_error", "invalid_api_key")
        error(await client.post(f"{CHAT}?api_key={ADMIN}", json=ASKED), 401)


async def test_a_key_without_the_scope_is_403() -> None:
    async with gateway() as client:
        made = await client.post("/v1/keys", json={"name": "asks", "scopes": ["query"]})
        headers = {"Authorization": f"Bearer {made.json()['key']}"}
        found = error(await client.get("/v1/files", headers=headers), 403)
        assert found["type"] == "permission_error"
        error(await client.get("/v1/images/generations", headers=headers), 403)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat", "/v1/chat/sessions", "/v1/completions", "/v1/images/generations"),
        *("/v1/audio/speech", "/v1/responses/a/b", "/v1/files/a/b/c", "/v1/vector_stores/a/b"),
        *("/v1/moderations", "/v1/threads/a/runs", "/v1/batches", "/v1/fine_tuning/jobs"),
    ],
)
async def test_a_resource_that_we_lack_is_404(path: str) -> None:
    async with gateway() as client:
        for method in ("GET", "POST"):
            reply = await client.request(method, path)
            assert error(reply, reply.status_code)["message"]
            assert reply.status_code in (404, 405)


@pytest.mark.parametrize("path", ["/v1/queries/a", "/v1/nothing", "/v1/chats", "/v1/model"])
def test_our_own_paths_are_not_taken_for_theirs(path: str) -> None:
    assert not error_envelopes.is_openai(path)


async def test_another_method_is_405() -> None:
    async with gateway() as client:
        assert "not allowed" in error(await client.get(CHAT), 405)["message"]


async def test_a_body_above_the_limit_is_413() -> None:
    async with gateway(max_request_bytes=1_000) as client:
        large = ASKED | {"user": "x" * 2_000}
        assert error(await client.post(CHAT, json=large), 413)["code"] == "request_too_large"


async def test_another_content_type_is_415() -> None:
    async with gateway() as client:
        text = {"Content-Type": "text/plain"}
        reply = await client.post(CHAT, content=b"a", headers=text)
        assert "application/json" in error(reply, 415)["message"]


async def test_requests_above_the_rate_are_429_with_the_time_to_wait() -> None:
    async with gateway(rate_limit_per_minute=1) as client:
        await client.post(CHAT, json=ASKED)
        reply = await client.post(CHAT, json=ASKED)
        found = error(reply, 429)
        assert (found["type"], found["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert int(reply.headers["retry-after"]) >= 1


async def test_a_service_that_is_away_is_503() -> None:
    async with gateway() as client:
        reply = await client.post(CHAT, json=ASKED)
        assert error(reply, 503)["type"] == "server_error"
        assert int(reply.headers["retry-after"]) >= 1
        embed = {"model": "raglan", "input": "a"}
        error(await client.post("/v1/embeddings", json=embed), 503)


async def test_rerank_routes_answer_in_the_form_of_their_clients() -> None:
    async with gateway() as client:
        for reply in (
            await client.post("/v1/rerank", json={"query": "a"}),
            await client.get("/v2/rerank"),
        ):
            assert set(reply.json()) == {"id", "message", "detail"}


PROBLEM = schemas.Problem(
    type="unavailable",
    code="UNAVAILABLE",
    message="The generator left.",
    request_id="r",
    retryable=True,
)


async def events() -> AsyncGenerator[sse.Event, None]:
    """A stream that breaks off in the middle of the answer."""
    yield sse.Event("start", schemas.StreamStart(id="r", trace_id="t"))
    yield sse.Event("delta", schemas.StreamDelta(text="The pump"))
    yield sse.Event("error", PROBLEM)


async def test_an_error_in_the_middle_of_a_chat_is_its_last_chunk() -> None:
    head = chat_replies.Head("raglan", 0, "http://localhost/", [])
    sent = [each async for each in chat_replies.chunks(events(), head, include_usage=False)]
    last = json.loads(str(sent[-1].data))
    assert last == {
        "error": {
            "message": "The generator left.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }


async def test_an_error_in_the_middle_of_a_response_ends_it_as_failed() -> None:
    head = response_replies.Head("raglan", 0, "Where?", {}, [], with_results=False)
    sent = [each async for each in response_replies.events(events(), head)]
    last = json.loads(str(sent[-1].data))
    assert (sent[-1].name, last["type"]) == ("response.failed", "response.failed")
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "The generator left."}


def _json() -> dict[str, str]:
    return {"Content-Type": "application/json"}
