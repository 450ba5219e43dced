"""What tenants do beside searches: chats, files, vector stores, sessions, past answers, tools.

Ids are alike wherever the caller may choose them; see `tenant_leaks`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx
from tenant_leaks import COLLECTION, MARKS, Tally, Tenant, questions

_SESSION: Final = "talk"
_TOOLS: Final = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
}


class TenantApis:
    """One tenant, and what it keeps by these APIs."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.mark = MARKS[tenant.name]
        self.session = f"s-{self.mark}"
        """A session beside `talk`, which every tenant has."""
        self.query = self.trace = ""
        """Ids of an answer that it was given, and of its trace."""
        self.file = ""

    async def fill(self) -> None:
        """Keep a file, two sessions and an answer with feedback."""
        text = f"The {self.mark} note says that the pump was sealed by {self.mark}."
        files = {"file": (f"{self.mark}.txt", text.encode(), "text/plain")}
        form = {"purpose": "assistants"}
        self.file = (await self._ok("POST", "/v1/files", data=form, files=files)).json()["id"]
        attached = {"file_id": self.file, "attributes": {"owner": self.mark}}
        await self._ok("POST", f"/v1/vector_stores/{COLLECTION}/files", json=attached)
        for _ in range(600):
            path = f"/v1/vector_stores/{COLLECTION}/files/{self.file}"
            if (await self._ok("GET", path)).json()["status"] == "completed":
                break
            await asyncio.sleep(0.05)
        for session in (_SESSION, self.session):
            await self.talk(session)

    async def empty(self) -> None:
        """Delete it."""
        await self._ok("DELETE", f"/v1/files/{self.file}")
        for session in (_SESSION, self.session):
            await self._ok("DELETE", f"/v1/sessions/{session}")

    async def talk(self, session: str) -> None:
        """Ask in a session, in words of its own alone."""
        question = f"When was the {self.mark} pump replaced?"
        body = {"query": question, "collections": [COLLECTION], "session_id": session}
        reply = (await self._ok("POST", "/v1/query", json=body)).json()
        self.query, self.trace = reply["id"], reply["trace_id"]

    async def use(self, chance: random.Random, body: dict[str, Any], url: str = "") -> None:
        """Use one of the APIs, and look at every part of the reply."""
        use = chance.choice(
            (self._chat, self._responses, self._vector_search, self._tool, self._lists, self._kept)
        )
        await use(chance, body, url)

    async def _chat(self, chance: random.Random, body: dict[str, Any], url: str) -> None:
        asked = {
            "model": "raglan",
            "messages": [{"role": "user", "content": body["query"]}],
            "raglan": {name: value for name, value in body.items() if name != "query"},
            "stream": chance.random() < 0.3,
        }
        reply = await self._ok("POST", "/v1/chat/completions", url, json=asked)
        self._see("chat", _without(reply, body["query"]))

    async def _responses(self, chance: random.Random, body: dict[str, Any], url: str) -> None:
        tool = {"type": "file_search", "vector_store_ids": [COLLECTION], "max_num_results": 20}
        asked = {
            "model": "raglan",
            "input": body["query"],
            "tools": [tool],
            "include": ["file_search_call.results"],
            "stream": chance.random() < 0.3,
        }
        reply = await self._ok("POST", "/v1/responses", url, json=asked)
        self._see("responses", _without(reply, body["query"]))

    async def _vector_search(self, chance: random.Random, body: dict[str, Any], url: str) -> None:
        asked: dict[str, Any] = {"query": body["query"], "max_num_results": 50}
        if chance.random() < 0.3:
            owner = chance.choice(list(MARKS.values()))
            asked["filters"] = {"type": "eq", "key": "owner", "value": owner}
        path = f"/v1/vector_stores/{COLLECTION}/search"
        self._see("vector_search", (await self._ok("POST", path, url, json=asked)).json()["data"])

    async def _tool(self, chance: random.Random, body: dict[str, Any], url: str) -> None:
        name = chance.choice(("search", "answer", "list_collections", "get_document"))
        arguments: dict[str, Any] = {"query": body["query"], "collections": [COLLECTION]}
        if name == "get_document":
            arguments = {"collection": COLLECTION, "document_id": self.file}
        elif name == "list_collections":
            arguments = {}
        params = {"name": name, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        reply = await self._ok("POST", "/mcp", url, json=message, headers=_TOOLS)
        text = reply.text.replace(body["query"], "")
        self._see("mcp", [text])

    async def _lists(self, _: random.Random, __: dict[str, Any], url: str) -> None:
        paths = {
            "files": "/v1/files",
            "vector_stores": "/v1/vector_stores",
            "store_files": f"/v1/vector_stores/{COLLECTION}/files?limit=100",
            "sessions": "/v1/sessions",
        }
        if self.tenant.name:  # the mesh's own callers see every change
            paths["audit"] = "/v1/audit?limit=50"
        for route, path in paths.items():
            reply = (await self._ok("GET", path, url)).json()
            self._see(route, reply.get("data") or reply.get(route) or reply.get("entries"))

    async def _kept(self, chance: random.Random, _: dict[str, Any], url: str) -> None:
        if chance.random() < 0.2:
            await self.talk(chance.choice((_SESSION, self.session)))
        answer = f"/v1/queries/{self.query}"
        rating = {"rating": chance.choice(("good", "bad")), "text": f"Says {self.mark}."}
        await self._of_answer("feedback", "PUT", f"{answer}/feedback", url, json=rating)
        path = chance.choice(
            (
                f"/v1/sessions/{_SESSION}",
                f"/v1/sessions/{_SESSION}/export",
                answer,
                f"/v1/files/{self.file}/content",
                f"/v1/vector_stores/{COLLECTION}/files/{self.file}/content",
            )
        )
        if path == answer:
            await self._of_answer("kept", "GET", path, url)
        else:
            self._see("kept", (await self._ok("GET", path, url)).text.splitlines())

    async def _of_answer(
        self, route: str, method: str, path: str, url: str, **options: Any
    ) -> None:
        """Call a route of an answer, which goes with the documents that it was made of."""
        reply = await self.tenant.call(method, path, url, **options)
        self._see(route, reply.text.splitlines())
        if reply.status_code == 404:
            await self.talk(_SESSION)
        else:
            assert reply.is_success, (path, reply.text)

    async def touch(self, other: TenantApis) -> None:
        """Try to reach what belongs to another tenant: there is no such thing."""
        rating = {"rating": "bad", "text": self.mark}
        attached = {"file_id": other.file}
        if self.tenant.name:  # the mesh's own callers see the traces of all
            await self._refused(403, "GET", f"/v1/traces/{other.trace}")
        for method, path, body in (
            ("GET", f"/v1/queries/{other.query}", None),
            ("PUT", f"/v1/queries/{other.query}/feedback", rating),
            ("DELETE", f"/v1/queries/{other.query}", None),
            ("GET", f"/v1/sessions/{other.session}", None),
            ("GET", f"/v1/sessions/{other.session}/export", None),
            ("PATCH", f"/v1/sessions/{other.session}", {"title": "mine"}),
            ("DELETE", f"/v1/sessions/{other.session}", None),
            ("GET", f"/v1/files/{other.file}", None),
            ("GET", f"/v1/files/{other.file}/content", None),
            ("DELETE", f"/v1/files/{other.file}", None),
            ("POST", f"/v1/vector_stores/{COLLECTION}/files", attached),
            ("GET", f"/v1/vector_stores/{COLLECTION}/files/{other.file}", None),
            ("GET", f"/v1/vector_stores/{MARKS[other.tenant.name]}-{COLLECTION}", None),
        ):
            await self._refused(404, method, path, body)

    async def _refused(self, status: int, method: str, path: str, body: Any = None) -> None:
        reply = await self.tenant.call(method, path, json=body)
        if reply.status_code != status:
            said = f"{method} {path}: {reply.status_code} to {self.tenant.name or '-'}"
            self.tenant.tally.foreign.append(said)
        # A refusal names what was asked for.
        asked = path.split("/")[3]
        self._see("refusals", [reply.text.replace(asked, "")])

    def _see(self, route: str, items: list[Any]) -> None:
        self.tenant.tally.see(route, self.tenant.name, items)

    async def _ok(self, method: str, path: str, url: str = "", **options: Any) -> httpx.Response:
        reply = await self.tenant.call(method, path, url, **options)
        assert reply.is_success, (method, path, reply.text)
        return reply


def _without(reply: httpx.Response, question: str) -> list[Any]:
    """Return the parts of a reply, or the events of a stream, without the question in them."""
    text = reply.text.replace(question, "")
    if reply.headers["content-type"].startswith("text/event-stream"):
        data = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        return [json.loads(each) for each in data]
    found = json.loads(text)
    passages = found["raglan"].pop("passages", [])
    return [*passages, found]


async def attack(
    tenants: Sequence[Tenant],
    tally: Tally,
    *,
    results: int,
    count: int,
    seed: int,
    urls: tuple[str, ...],
) -> None:
    """Send random requests of all tenants at once until `results` were seen."""
    edition = iter(range(2, 1_000_000))
    users = [TenantApis(tenant) for tenant in tenants]
    for user in users:
        await user.fill()

    async def one(user: TenantApis, chance: random.Random) -> None:
        tenant, asked = user.tenant, questions(chance, count)
        others = [each for each in users if each is not user]
        uses: list[tuple[int, Callable[[dict[str, Any], str], Awaitable[object]]]] = [
            (720, lambda body, url: tenant.ask("search", url, **body)),
            (60, lambda body, url: tenant.ask("query", url, **body)),
            (40, lambda body, url: tenant.stream(url, **body)),
            (110, lambda body, url: user.use(chance, body, url)),
            (35, lambda _, __: tenant.lists(chance, count)),
            (15, lambda _, __: tenant.touch_others(list(tenants), chance)),
            (15, lambda _, __: user.touch(chance.choice(others))),
            (5, lambda _, __: tenant.replace_some(chance, count, next(edition))),
        ]
        weights, actions = zip(*uses, strict=True)
        while tally.total < results:
            (act,) = chance.choices(actions, weights)
            await act(next(asked), chance.choice(urls))

    async with asyncio.TaskGroup() as tasks:
        for number, user in enumerate(users):
            tasks.create_task(one(user, random.Random(f"{seed}.{number}")))
    for user in users:
        await user.empty()
