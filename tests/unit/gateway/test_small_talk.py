"""Small talk is answered with no service in reach; every other question needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import pytest
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

REPLY = "Hello! Ask me a question about the documents."


@asynccontextmanager
async def serving(tmp_path: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = GatewaySettings(
        **gateway_serving.NOWHERE, data_dir=tmp_path, default_collection="", **settings
    )
    app = build(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://localhost", timeout=20
        ) as client,
    ):
        yield client


def ask(client: httpx.AsyncClient, query: str, **more: Any) -> Any:
    body = {"query": query, "collections": ["c"], "timeout_ms": 1_000, **more}
    return client.post("/v1/query", json=body)


async def test_a_greeting_is_answered_without_a_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        reply = (await ask(client, "  Hello! \u200b")).raise_for_status().json()
    assert reply["answer"] == REPLY
    assert (reply["citations"], reply["passages"], reply["claims"]) == ([], [], [])
    assert (reply["abstained"], reply["finish_reason"]) == (False, "stop")
    assert (reply["model"], reply["degraded"]) == ("small-talk", [])
    assert (reply["standalone_question"], reply["confidence"]) == ("Hello!", 1)
    assert reply["understanding"]["intent"] == "chit-chat"


async def test_a_greeting_is_streamed(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        body = (await ask(client, "Hello!", stream=True)).raise_for_status().text
    names = [line.removeprefix("event: ") for line in body.splitlines() if line[:6] == "event:"]
    assert names == ["start", "sources", "delta", "final", "done"]


async def test_thanks_in_a_conversation_take_nothing_of_it(tmp_path: Path) -> None:
    history = [{"role": "user", "text": "How do I install hatch?"}]
    async with serving(tmp_path) as client:
        reply = (await ask(client, "thanks!", history=history)).raise_for_status().json()
    assert reply["standalone_question"] == "thanks!"
    assert reply["answer"].startswith("You're welcome!")


async def test_a_chat_completion_greets(tmp_path: Path) -> None:
    body = {"model": "raglan", "messages": [{"role": "user", "content": "Hi there"}]}
    async with serving(tmp_path) as client:
        reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
    assert reply["choices"][0]["message"]["content"] == REPLY


@pytest.mark.parametrize(
    ("query", "more", "settings"),
    [
        ("hello world", {}, {}),
        ("Hello, how do I install hatch?", {}, {}),
        ("Hello!", {}, {"small_talk": False}),
        ("Hello!", {"json_schema": {"type": "object"}}, {}),
    ],
)
async def test_a_question_needs_the_services(
    tmp_path: Path, query: str, more: dict[str, Any], settings: dict[str, Any]
) -> None:
    async with serving(tmp_path, **settings) as client:
        reply = await ask(client, query, **more)
    assert reply.status_code in {503, 504}


@pytest.mark.parametrize("query", ["\u200b", "\x1b[31m", "\u202e \u2066"])
@pytest.mark.parametrize("path", ["/v1/query", "/v1/search"])
async def test_a_query_that_nobody_can_read_is_refused(
    tmp_path: Path, query: str, path: str
) -> None:
    async with serving(tmp_path) as client:
        reply = await client.post(path, json={"query": query, "collections": ["c"]})
    assert reply.status_code == 422
    assert "control characters" in reply.json()["error"]["message"]


async def test_a_long_pasted_text_is_refused_with_the_limit(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        reply = await ask(client, "thanks " * 15_000)
    assert reply.status_code == 422
    assert "8000" in reply.json()["error"]["message"]
