"""Stored documents on a whole mesh: metadata, access tags, and changes by filter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import mesh_process
import pytest
import tenant_leaks
from mesh_process import Mesh
from pydantic import SecretStr

QUESTION = "Who is paid by the day?"
SECRET = "The board's driver is paid by the day."
OPEN = "The gardener is paid by the month."


class Caller:
    """A caller with access tags, on either of two gateways that share a Redis."""

    def __init__(self, client: httpx.AsyncClient, access: str, urls: list[str]) -> None:
        self.client = client
        self.urls = urls
        self.headers = {"x-test-access": access} if access else {}

    async def call(self, method: str, path: str, gateway: int = 0, **options: Any) -> Any:
        url = f"{self.urls[gateway]}{path}"
        return await self.client.request(method, url, headers=self.headers, **options)

    async def ask(self, collection: str, gateway: int = 0, **body: Any) -> Any:
        body = {"query": QUESTION, "collections": [collection]} | body
        reply = await self.call("POST", "/v1/query", gateway, json=body)
        assert reply.status_code == 200, reply.text
        return reply

    async def ended(self, job_id: str) -> Any:
        async with asyncio.timeout(60):
            while not (job := (await self.call("GET", f"/v1/jobs/{job_id}")).json())["finished_at"]:
                await asyncio.sleep(0.05)
        return job


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretStr]:
    with tenant_leaks.redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def callers(mesh: Mesh, redis_url: SecretStr) -> AsyncIterator[dict[str, Caller]]:
    services = {s["service"]: s["address"] for s in mesh.services() if s["service"] != "gateway"}
    async with AsyncExitStack() as stack:
        gateways = [tenant_leaks.gateway(services, redis_url=redis_url) for _ in range(2)]
        urls = [await stack.enter_async_context(each) for each in gateways]
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        yield {access: Caller(client, access, urls) for access in ("*", "hr", "board", "")}


@pytest.fixture
async def filled(callers: dict[str, Caller], collection: str) -> str:
    documents = [
        {"id": "secret", "text": SECRET, "access": ["board"], "metadata": {"team": "x"}},
        {"id": "open", "text": OPEN, "metadata": {"team": "y"}},
    ]
    path = f"/v1/collections/{collection}/documents"
    made = await callers["*"].call("POST", path, json={"documents": documents})
    assert (await callers["*"].ended(made.json()["job_id"]))["status"] == "succeeded"
    return collection


async def test_only_callers_with_a_tag_find_a_document_whatever_is_cached(
    callers: dict[str, Caller], filled: str
) -> None:
    path = f"/v1/collections/{filled}/documents"
    # Those who reach it go first, so that caches hold their answers.
    for access in ("*", "board", "hr", "", "board", "hr"):
        who, reaches = callers[access], access in ("*", "board")
        for gateway in (0, 1):
            for body in ({}, {"stream": True}, {"mode": "lexical"}, {"rerank": False}):
                reply = await who.ask(filled, gateway, **body)
                assert ("driver" in reply.text) == reaches, (access, body)
            search = {"query": QUESTION, "collections": [filled]}
            found = await who.call("POST", "/v1/search", gateway, json=search)
            assert ("driver" in found.text) == reaches
        listed = (await who.call("GET", path)).json()["documents"]
        assert [each["id"] for each in listed] == (["open", "secret"] if reaches else ["open"])
        expected = 200 if reaches else 404
        store = f"/v1/vector_stores/{filled}/files"
        for read in (f"{path}/secret", f"{store}/secret", f"{store}/secret/content"):
            assert (await who.call("GET", read)).status_code == expected, read
        tool = {
            "name": "get_document",
            "arguments": {"collection": filled, "document_id": "secret"},
        }
        called = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": tool}
        accept = {"accept": "application/json, text/event-stream"}
        reply = await who.client.post(
            f"{who.urls[0]}/mcp", json=called, headers=who.headers | accept
        )
        assert ("driver" in reply.text) == reaches


async def test_new_tags_hide_a_document_and_the_answers_that_were_kept_of_it(
    callers: dict[str, Caller], filled: str
) -> None:
    everyone, board = callers["*"], callers["board"]
    path = f"/v1/collections/{filled}/documents"
    kept = (await board.ask(filled)).headers["x-request-id"]
    assert "driver" in (await board.call("GET", f"/v1/queries/{kept}")).text
    denied = await board.call("PATCH", f"{path}/open", json={"access": ["hr"]})
    assert denied.status_code == 403
    done = await everyone.call("PATCH", f"{path}/secret", json={"access": ["hr"]})
    assert done.json()["access"] == ["hr"]
    assert (await board.call("GET", f"/v1/queries/{kept}")).status_code == 404
    for gateway in (0, 1):
        assert "driver" not in (await board.ask(filled, gateway)).text
        assert "driver" in (await callers["hr"].ask(filled, gateway)).text
    await everyone.call("PATCH", f"{path}/secret", json={"access": []})
    assert "driver" in (await callers[""].ask(filled)).text


async def test_metadata_of_a_document_change_at_once_for_filters_of_searches_and_lists(
    callers: dict[str, Caller], filled: str
) -> None:
    who, path = callers[""], f"/v1/collections/{filled}/documents"
    new = {"eq": {"field": "team", "value": "z"}}
    search = {"query": QUESTION, "collections": [filled], "filter": new}
    assert (await who.call("POST", "/v1/search", json=search)).json()["passages"] == []
    change = {"metadata": {"team": "z", "when": "2026-11-29"}}
    changed = (await who.call("PATCH", f"{path}/open", json=change)).json()
    assert changed["metadata"] == {"team": "z", "when": "2026-11-29"}
    (passage,) = (await who.call("POST", "/v1/search", json=search)).json()["passages"]
    assert (passage["document_id"], passage["metadata"]) == ("open", changed["metadata"])
    listed = await who.call("GET", path, params={"filter": '{"eq":{"field":"team","value":"z"}}'})
    assert [each["id"] for each in listed.json()["documents"]] == ["open"]
    for wrong in ("{", "[]", '{"eq":1}', '{"what":{}}'):
        refused = await who.call("GET", path, params={"filter": wrong})
        assert refused.status_code == 422, refused.text
    for wrong in ({}, {"metadata": None}, {"access": ["a b"]}, {"access": ["x" * 10_000]}):
        assert (await who.call("PATCH", f"{path}/open", json=wrong)).status_code == 422


async def test_attributes_of_a_vector_store_file_change_in_place(
    callers: dict[str, Caller], filled: str
) -> None:
    path = f"/v1/vector_stores/{filled}/files/open"
    changed = await callers[""].call("POST", path, json={"attributes": {"year": 2026}})
    assert changed.json()["attributes"] == {"year": 2026}, changed.text
    hidden = f"/v1/vector_stores/{filled}/files/secret"
    refused = await callers["hr"].call("POST", hidden, json={"attributes": {"year": 1}})
    assert refused.status_code == 404
    held = await callers[""].call("GET", f"/v1/collections/{filled}/documents/open")
    assert held.json()["metadata"] == {"year": 2026}


async def test_documents_deleted_by_filter_leave_no_answer(
    callers: dict[str, Caller], filled: str
) -> None:
    who, path = callers["*"], f"/v1/collections/{filled}/documents"
    wanted = {"filter": {"eq": {"field": "team", "value": "x"}}}
    dry = (await who.call("POST", f"{path}/delete", json=wanted | {"dry_run": True})).json()
    assert (dry["matches"], dry["document_ids"], dry["job_id"]) == (1, ["secret"], None)
    everything = {"filter": {"exists": {"field": "nothing", "value": False}}}
    assert (await who.call("POST", f"{path}/delete", json=everything)).status_code == 409
    kept = (await who.ask(filled)).headers["x-request-id"]
    done = (await who.call("POST", f"{path}/delete", json=wanted)).json()
    assert (await who.ended(done["job_id"]))["kind"] == "delete"
    async with asyncio.timeout(20):
        while (await who.call("GET", f"/v1/queries/{kept}")).status_code != 404:
            await asyncio.sleep(0.05)
    assert "driver" not in (await who.ask(filled)).text
    tagged = {"filter": {"eq": {"field": "team", "value": "y"}}, "add_access": ["hr"]}
    done = (await who.call("POST", f"{path}/tag", json=tagged | {"all": True})).json()
    assert (await who.ended(done["job_id"]))["status"] == "succeeded"
    assert "gardener" not in (await callers["board"].ask(filled)).text
    assert "gardener" in (await callers["hr"].ask(filled)).text


async def test_passages_are_joined_with_neighbours_that_the_caller_reaches(
    callers: dict[str, Caller], collection: str
) -> None:
    documents = [
        {
            "id": name,
            "text": "\n\n".join(f"{text} That is rule {n} of {name}. " * 12 for n in range(6)),
            "access": access,
        }
        for name, text, access in (("secret", SECRET, ["board"]), ("open", OPEN, []))
    ]
    path = f"/v1/collections/{collection}/documents"
    made = await callers["*"].call("POST", path, json={"documents": documents})
    assert (await callers["*"].ended(made.json()["job_id"]))["status"] == "succeeded"
    for access, reached in (("board", {"secret", "open"}), ("hr", {"open"}), ("", {"open"})):
        reply = (await callers[access].ask(collection, expand_tokens=4_000)).json()
        passages = reply["passages"]
        assert {each["document_id"] for each in passages} == reached
        assert max(len(each["chunk_ids"]) for each in passages) > 1
        assert ("driver" in str(reply)) == ("secret" in reached)
    await callers["*"].call("PATCH", f"{path}/secret", json={"access": ["hr"]})
    for access, reached in (("board", {"open"}), ("hr", {"secret", "open"})):
        reply = (await callers[access].ask(collection, expand_tokens=4_000)).json()
        assert {each["document_id"] for each in reply["passages"]} == reached


def test_a_json_document_in_markdown_keeps_its_headings(
    client: httpx.Client, collection: str
) -> None:
    text = "# Pumps\n\n## Cleaning\n\nThe pump is cleaned in March.\n"
    document = {"id": "guide", "text": text, "media_type": "text/markdown"}
    mesh_process.ingest(client, collection, [document])
    held = client.get(f"/v1/collections/{collection}/documents/guide").json()
    assert held["media_type"] == "text/markdown"
    assert any("Cleaning" in chunk["heading_path"] for chunk in held["chunks"])
    wrong = document | {"media_type": "application/pdf"}
    path = f"/v1/collections/{collection}/documents"
    assert client.post(path, json={"documents": [wrong]}).status_code == 422
