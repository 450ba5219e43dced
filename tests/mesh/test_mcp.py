"""The MCP server of a real mesh, by the clients that agents are made of and by bare HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastmcp
import httpx
import jsonschema
import mcp
import mesh_process
import pytest
from fastmcp.exceptions import ToolError
from mcp.shared.exceptions import MCPError

TEXT = "The release manager signs off every release."
QUESTION = "Who signs off a release?"
JSON = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture
def filled(client: httpx.Client, collection: str) -> str:
    mesh_process.ingest(
        client, collection, [{"id": "a/release.md", "title": "Releases", "text": TEXT}]
    )
    return collection


def call(client: httpx.Client, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool by bare HTTP, as a client of an earlier revision without a session does."""
    reply = post(client, "tools/call", {"name": name, "arguments": arguments})
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()["result"]
    return result


def post(client: httpx.Client, method: str, params: Any, **headers: str) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return client.post("/mcp", json=message, headers=JSON | headers)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_sdk_client_uses_every_tool(
    mesh: mesh_process.Mesh, filled: str, mode: Any
) -> None:
    """By the handshake of 2025 and by the revision of 2026, which has no sessions."""
    async with mcp.Client(f"{mesh.url}/mcp", mode=mode) as agent:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
        assert sorted(tools) == ["answer", "get_document", "list_collections", "search"]
        asked = {"query": QUESTION, "collections": [filled]}
        results = {
            "list_collections": await agent.call_tool("list_collections", {}),
            "search": await agent.call_tool("search", asked),
            "answer": await agent.call_tool("answer", asked),
            "get_document": await agent.call_tool(
                "get_document", {"collection": filled, "document_id": "a/release.md"}
            ),
        }
    texts = {}
    for name, result in results.items():
        assert not result.is_error, result
        schema = tools[name].output_schema
        assert schema is not None
        jsonschema.validate(result.structured_content, schema)
        texts[name] = result.content[0].text
    assert f"{filled}: 1 documents" in texts["list_collections"]
    assert texts["search"].startswith(f"[1] Releases ({filled}/a/release.md)\n{TEXT}")
    assert f'[1] Releases ({filled}/a/release.md): "{TEXT}"' in texts["answer"]
    assert texts["get_document"].endswith(TEXT)
    cited = results["answer"].structured_content["citations"][0]
    document = results["get_document"].structured_content["text"]
    assert document[cited["start"] : cited["end"]] == cited["quote"]


def test_fastmcp_uses_it_and_sees_errors_as_sentences(mesh: mesh_process.Mesh, filled: str) -> None:
    async def use() -> None:
        async with fastmcp.Client(f"{mesh.url}/mcp") as agent:
            found = await agent.call_tool("search", {"query": QUESTION, "collections": [filled]})
            assert found.structured_content["passages"][0]["text"] == TEXT
            with pytest.raises(ToolError, match="no collection 'nothing'"):
                await agent.call_tool("search", {"query": QUESTION, "collections": ["nothing"]})
            with pytest.raises(ToolError, match="there is no field 'k'; the fields are"):
                await agent.call_tool("search", {"query": QUESTION, "k": 3})

    # A loop of its own: this client imports a part of itself when it connects.
    asyncio.run(use())


def test_calls_without_a_session_are_served(client: httpx.Client, filled: str) -> None:
    result = call(client, "search", query=QUESTION, collections=[filled])
    assert result["structuredContent"]["passages"][0]["document_id"] == "a/release.md"


def test_a_session_that_does_not_exist_is_no_reason_to_refuse(client: httpx.Client) -> None:
    assert post(client, "tools/list", {}, **{"Mcp-Session-Id": "gone"}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_would_wait_or_end_a_session_is_refused_at_once(
    client: httpx.Client, method: str
) -> None:
    reply = client.request(method, "/mcp", headers={"Accept": "text/event-stream"}, timeout=5)
    assert reply.status_code == 405
    assert reply.headers["Allow"] == "POST"
    assert "message" in reply.json()["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"query": " "}, "query"),
        ({"query": "a", "top_k": 100_000}, "RAGLAN_GATEWAY_MAX_TOP_K"),
        ({"query": "a" * 9_000}, "RAGLAN_GATEWAY_MAX_QUERY_CHARS"),
        ({"query": "a", "collections": ["../a"]}, "collections.0"),
        ({"query": "a", "filter": {"eq": 1}}, "filter"),
        ({}, "query"),
    ],
)
def test_wrong_arguments_are_errors_of_the_tool(
    client: httpx.Client, arguments: dict[str, Any], words: str
) -> None:
    result = call(client, "search", **arguments)
    assert result["isError"]
    assert words in result["content"][0]["text"]
    assert result["_meta"]["raglan/error"]["type"] == "invalid_input"
    assert result["_meta"]["raglan/error"]["request_id"]


async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(
    mesh: mesh_process.Mesh,
) -> None:
    async with mcp.Client(f"{mesh.url}/mcp") as agent:
        with pytest.raises(MCPError, match="no tool 'remove'; use search, answer"):
            await agent.call_tool("remove", {})


def test_a_long_document_comes_in_parts(client: httpx.Client, collection: str) -> None:
    text = "".join(f"{number:05d}\n" for number in range(1_000))
    mesh_process.ingest(client, collection, [{"id": "long.txt", "text": text}])
    parts, start = [], 0
    while start is not None:
        part = call(
            client, "get_document",
            collection=collection, document_id="long.txt", start=start, max_chars=2_500,
        )["structuredContent"]  # fmt: skip
        parts.append(part["text"])
        start = part["next_start"]
    whole = client.get(f"/v1/collections/{collection}/documents/long.txt").json()["text"]
    assert "".join(parts) == whole
    past = call(client, "get_document", collection=collection, document_id="long.txt", start=10**9)
    assert "the text ends at" in past["content"][0]["text"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Accept": "text/html"}, 406),
    ],
)
def test_foreign_pages_and_other_protocols_are_refused(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert post(client, "tools/list", {}, **headers).status_code == status


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","id":1,"method":"none"}'],
)
def test_what_is_no_message_is_answered_at_once(client: httpx.Client, body: bytes) -> None:
    reply = client.post("/mcp", content=body, headers=JSON, timeout=10)
    assert reply.status_code in (200, 400, 404)
    assert "error" in reply.json()


def test_a_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "a" * 2_000_000})
    reply = client.post("/mcp", content=body, headers=JSON)
    assert reply.status_code == 413
    assert "RAGLAN_GATEWAY_MAX_REQUEST_BYTES" in reply.text


def test_the_example_of_the_page_runs(mesh: mesh_process.Mesh, collection: str) -> None:
    page = (Path(__file__).parents[2] / "docs/api/mcp.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True, text=True, timeout=60, env=os.environ | {"RAGLAN_URL": mesh.url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'search', 'answer', 'list_collections', 'get_document'" in done.stdout
    assert f"{collection}: 0 documents" in done.stdout
