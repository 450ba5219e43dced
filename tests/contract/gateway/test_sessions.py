"""Sessions, past answers and feedback, over SQLite and a real PostgreSQL; services are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from kept_answers import BOUNDS, WAIT_S, archive, change, count, new_answer, turns, use
from postgres_server import PostgresServer
from pydantic import SecretStr
from raglan.rpc.server import Server
from raglan_embedder.app import build as build_embedder
from raglan_embedder.settings import EmbedderSettings
from raglan_gateway.app import build as build_gateway
from raglan_gateway.conversation import archive as archives
from raglan_gateway.conversation import rows
from raglan_gateway.conversation.records import Bounds, Owner
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.store.model import AnswerRow, FeedbackRow, SessionRow
from raglan_generator.app import build as build_generator
from raglan_generator.settings import GeneratorSettings
from raglan_reranker.app import build as build_reranker
from raglan_reranker.settings import RerankerSettings
from raglan_retriever.app import build as build_retriever
from raglan_retriever.settings import RetrieverSettings
from sqlalchemy.orm import Session

QUICK = {"port": 0, "shutdown_drain_s": 0, "shutdown_grace_s": 0}
ASK = {"query": "Who built the analytical engine?", "collections": ["default"], "top_k": 3}


@asynccontextmanager
async def gateway(url: str, tmp_path: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway before services without models."""
    services: tuple[tuple[str, Any, Any], ...] = (
        ("embedder", build_embedder, EmbedderSettings(engine="null", **QUICK)),
        ("retriever", build_retriever, RetrieverSettings(store="null", **QUICK)),
        ("reranker", build_reranker, RerankerSettings(engine="null", **QUICK)),
        ("generator", build_generator, GeneratorSettings(engine="null", **QUICK)),
    )
    async with AsyncExitStack() as stack:
        addresses = {}
        for name, build, settings in services:
            server = Server(build(settings), settings)
            await server.start()
            stack.push_async_callback(server.stop)
            addresses[f"{name}_address"] = f"127.0.0.1:{server.port}"
        app = build_gateway(
            GatewaySettings(
                ingester_address="127.0.0.1:1",
                default_collection="",
                database_url=SecretStr(url),
                data_dir=tmp_path,
                **addresses,
                **options,
            )
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20)
        async with client, asyncio.timeout(WAIT_S):
            while (await client.get("/v1/sessions")).status_code == 503:
                await asyncio.sleep(0.02)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20)
        )


async def ask(client: httpx.AsyncClient, query: str, **body: Any) -> dict[str, Any]:
    reply = await client.post("/v1/query", json={**ASK, "query": query, **body})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_a_session_holds_the_history_that_a_follow_up_refers_to(
    url: str, tmp_path: Path
) -> None:
    async with gateway(url, tmp_path) as client:
        first = await ask(client, "How do I install hatch on macOS?", session_id="s1")
        second = await ask(client, "and on Windows?", session_id="s1")
        assert second["standalone_question"] == "How do I install hatch on Windows?"
        held = (await client.get("/v1/sessions/s1")).json()
        assert [turn["query_id"] for turn in held["turns"]] == [first["id"], second["id"]]
        assert held["title"] == "How do I install hatch on macOS?"
        third = await ask(client, "and on Windows?", session_id="s2")
        assert third["standalone_question"] == "and on Windows?"


@pytest.mark.parametrize("stream", [False, True])
async def test_no_store_keeps_no_answer_either(url: str, tmp_path: Path, stream: bool) -> None:
    async with gateway(url, tmp_path) as client:
        for control, kept in (("no-cache", 200), ("no-store", 404)):
            reply = await client.post(
                "/v1/query",
                json=ASK | {"session_id": control, "stream": stream},
                headers={"Cache-Control": control},
            )
            assert reply.status_code == 200
            made = f"/v1/queries/{reply.headers['x-request-id']}"
            assert (await client.get(made)).status_code == kept
            assert (await client.get(f"/v1/sessions/{control}")).status_code == kept


async def test_turns_are_kept_though_a_client_repeats_its_request_id(
    url: str, tmp_path: Path
) -> None:
    headers = {"X-Request-ID": "mine"}
    async with gateway(url, tmp_path) as client:
        ids = []
        for question in ("Who built it?", "Who paid for it?"):
            asked = ASK | {"query": question, "session_id": "s1"}
            reply = await client.post("/v1/query", json=asked, headers=headers)
            assert reply.headers["x-request-id"] == "mine"
            ids.append(reply.json()["id"])
        turns = (await client.get("/v1/sessions/s1")).json()["turns"]
        assert [(turn["query_id"], turn["question"]) for turn in turns] == [
            (ids[0], "Who built it?"),
            (ids[1], "Who paid for it?"),
        ]


async def test_sessions_are_created_listed_renamed_exported_and_deleted(
    url: str, tmp_path: Path
) -> None:
    async with gateway(url, tmp_path) as client:
        made = await client.post("/v1/sessions", json={"title": "First"})
        assert made.status_code == 201
        path = f"/v1/sessions/{made.json()['id']}"
        for question in ("Who built it?", "Who paid for the engine?"):
            await ask(client, question, session_id=made.json()["id"])
        renamed = await client.patch(path, json={"title": "Engines"})
        assert renamed.json()["title"] == "Engines"
        listed = (await client.get("/v1/sessions")).json()["sessions"]
        assert [each["title"] for each in listed] == ["Engines"]

        page = (await client.get(path, params={"limit": 1})).json()
        rest = (await client.get(path, params={"limit": 1, "after": page["next_after"]})).json()
        assert [each["turns"][0]["question"] for each in (page, rest)] == [
            "Who built it?",
            "Who paid for the engine?",
        ]
        exported = (await client.get(f"{path}/export")).text
        lines = [json.loads(line) for line in exported.split("\n")[:-1]]
        assert [line["request"]["query"] for line in lines] == [
            "Who built it?",
            "Who paid for the engine?",
        ]
        assert (await client.delete(path)).status_code == 200
        for gone in (path, f"{path}/export", f"/v1/queries/{lines[0]['id']}"):
            assert (await client.get(gone)).status_code == 404


async def test_a_past_answer_is_replayed_with_what_it_saw_and_deleted(
    url: str, tmp_path: Path
) -> None:
    async with gateway(url, tmp_path) as client:
        given = await ask(client, "Who built the analytical engine?", temperature=0.5)
        path = f"/v1/queries/{given['id']}"
        kept = (await client.get(path)).json()
        assert kept["reply"] == given
        assert (kept["request"]["temperature"], kept["request"]["top_k"]) == (0.5, 3)
        assert (await client.delete(path)).status_code == 200
        assert (await client.get(path)).status_code == 404


async def test_a_streamed_answer_is_kept_too(url: str, tmp_path: Path) -> None:
    async with gateway(url, tmp_path) as client:
        text = (await client.post("/v1/query", json={**ASK, "stream": True})).text
        data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        start, final = data[0], data[-1] if "answer" in data[-1] else data[-2]
        assert start["standalone_question"] == ASK["query"]
        assert (await client.get(f"/v1/queries/{start['id']}")).json()["reply"] == final


async def test_feedback_is_kept_replaced_and_refused_for_an_unknown_answer(
    url: str, tmp_path: Path
) -> None:
    async with gateway(url, tmp_path) as client:
        given = await ask(client, "Who built the analytical engine?")
        path = f"/v1/queries/{given['id']}/feedback"
        chunk = given["passages"][0]["chunk_id"]
        body = {"rating": "bad", "reasons": ["wrong_source"], "text": "no", "passage": chunk}
        assert (await client.put(path, json=body)).status_code == 200
        assert (await client.put(path, json={"rating": "good"})).status_code == 200
        kept = (await client.get(f"/v1/queries/{given['id']}")).json()["feedback"]
        assert (kept["rating"], kept["reasons"], kept["passage"]) == ("good", [], "")
        refused = await client.put("/v1/queries/unknown/feedback", json=body)
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "NOT_FOUND"


async def test_wrong_bodies_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.sqlite'}"
    async with gateway(url, tmp_path) as client:
        turn = {"role": "user", "text": "x"}
        both = await client.post("/v1/query", json={**ASK, "session_id": "s", "history": [turn]})
        assert both.status_code == 422
        bad = await client.put("/v1/queries/x/feedback", json={"rating": "perhaps"})
        assert bad.status_code == 422
        assert (await client.get("/v1/sessions/s/../x")).status_code == 404
        assert (await client.post("/v1/sessions", json={"id": "s"})).status_code == 201
        after = {"after": "x:1"}
        assert (await client.get("/v1/sessions/s", params=after)).status_code == 422


async def test_where_nothing_is_kept_sessions_are_refused_and_queries_answered(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'own.sqlite'}"
    async with gateway(url, tmp_path, keep_answers_s=0) as client:
        assert (await ask(client, "Who built the engine?"))["degraded"] == []
        assert (await client.get("/v1/sessions")).status_code == 501
        refused = await client.post("/v1/query", json={**ASK, "session_id": "s1"})
        assert refused.status_code == 422
        assert "KEEP_ANSWERS_S" in refused.json()["error"]["message"]


async def test_queries_go_on_while_the_database_is_away_and_say_so(tmp_path: Path) -> None:
    server = await asyncio.to_thread(PostgresServer)
    try:
        async with gateway(server.url, tmp_path) as client:
            await ask(client, "How do I install hatch on macOS?", session_id="s1")
            held = await client.get("/v1/sessions/s1")
            assert len(held.json()["turns"]) == 1
            await asyncio.to_thread(server.stop)
            reply = await ask(client, "and on Windows?", session_id="s1")
            assert [each["stage"] for each in reply["degraded"]] == ["history"]
            assert (await ask(client, "Who built the engine?"))["degraded"] == []
            assert (await client.get("/v1/sessions")).status_code == 503
            metrics = (await client.get("/metrics")).text
            assert 'raglan_gateway_rung{rung="no_sessions"}' in metrics
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(WAIT_S):
                while (await client.get(f"/v1/queries/{reply['id']}")).status_code != 200:
                    await asyncio.sleep(0.05)
            turns = (await client.get("/v1/sessions/s1")).json()["turns"]
            assert [turn["question"] for turn in turns] == [
                "How do I install hatch on macOS?",
                "and on Windows?",
            ]
    finally:
        await asyncio.to_thread(server.remove)


async def test_nobody_elses_sessions_answers_and_feedback_are_found(
    url: str, tmp_path: Path
) -> None:
    async with archive(url, tmp_path) as kept:
        use("ann", "one")
        kept.keep(new_answer("q", "s", "Question", "Answer", b"{}"))
        for name, tenant in (("bob", "one"), ("ann", "two")):
            use(name, tenant)
            assert await kept.run(rows.list_sessions, 10) == []
            assert await turns(kept, "s", 10) == []
            for work in (rows.find_session, rows.delete_session):
                with pytest.raises(rows.NotFound):
                    await kept.run(work, "s")
            for find in (rows.find_answer, rows.delete_answer, rows.answer_with_feedback):
                with pytest.raises(rows.NotFound):
                    await kept.run(find, "q")
        use("ann", "one")
        assert await turns(kept, "s", 10) == [("Question", "Answer")]


async def test_pages_of_sessions_hold_each_session_once(url: str, tmp_path: Path) -> None:
    """Also those of one millisecond, whose order is that of their ids."""

    def used_together(session: Session, _: Owner) -> None:
        earlier = sa.update(SessionRow).where(SessionRow.id < "s5")
        session.execute(earlier.values(used_ms=5))

    async with archive(url, tmp_path) as kept:
        use("ann")
        for at in range(7):
            await kept.run(rows.create_session, f"s{at}", "")
        await kept.run(used_together)
        found: list[str] = []
        after = None
        while page := await kept.run(rows.list_sessions, 2, after):
            found += [row.id for row in page]
            after = (page[-1].used_ms, page[-1].id)
        assert set(found[:2]) == {"s5", "s6"}
        assert found[2:] == ["s4", "s3", "s2", "s1", "s0"]


async def test_what_is_beyond_the_bounds_of_a_caller_is_purged(url: str, tmp_path: Path) -> None:
    async with archive(url, tmp_path) as kept:
        use("ann")
        for at in range(30):
            kept.keep(new_answer(f"q{at}", f"s{at % 5}", "Question", "Answer", b"{}"))
        use("bob")
        kept.keep(new_answer("q", "s", "Question", "Answer", b"{}"))
        await kept.run(rows.put_feedback, "q", rating="good", reasons=[], text="", passage="")
        await kept.purge()
        assert await count(kept, FeedbackRow) == 1
        assert len(await kept.run(rows.list_sessions, 10)) == 1
        use("ann")
        sessions = await kept.run(rows.list_sessions, 10)
        assert len(sessions) == BOUNDS.sessions
        assert 0 < await count(kept, AnswerRow) <= BOUNDS.answers + 1


async def test_what_is_too_old_is_purged_with_its_feedback(url: str, tmp_path: Path) -> None:
    bounds = Bounds(age_ms=1, answers=10, bytes=10_000, sessions=3)
    async with archive(url, tmp_path, bounds) as kept:
        kept.keep(new_answer("q", "s", "Question", "Answer", b"{}"))
        await kept.run(rows.put_feedback, "q", rating="good", reasons=[], text="", passage="")
        await asyncio.sleep(0.01)
        await kept.purge()
        for table in (AnswerRow, SessionRow, FeedbackRow):
            assert await count(kept, table) == 0


async def test_answers_go_with_the_documents_that_they_were_made_of(
    url: str, tmp_path: Path
) -> None:
    async with archive(url, tmp_path) as kept:
        answers = {
            "one": {("default", "a"), ("default", "b")},
            "two": {("default", "b")},
            "other-collection": {("more", "a")},
            "none": set(),
        }
        for name in ("ann", "bob"):
            use(name, "t")
            for id_, sources in answers.items():
                kept.keep(new_answer(id_, f"s-{id_}", id_, "Answer", b"{}", sources))
        await kept.run(rows.put_feedback, "one", rating="bad", reasons=[], text="", passage="")
        use("ann", "another")
        kept.keep(new_answer("one", "s-one", "one", "Answer", b"{}", {("default", "a")}))

        async def questions(name: str, tenant: str) -> list[str]:
            use(name, tenant)
            found = [await turns(kept, f"s-{id_}", 10) for id_ in answers]
            return sorted(question for each in found for question, _ in each)

        use("bob", "t")
        await change(kept, "default", ["a", "never seen"])
        for name in ("ann", "bob"):
            assert await questions(name, "t") == ["none", "other-collection", "two"]
        assert await count(kept, FeedbackRow) == 0
        await change(kept, "more", [])
        assert await questions("ann", "t") == ["none", "two"]
        assert await questions("ann", "another") == ["one"]


async def test_a_turn_goes_with_the_documents_of_the_turns_before_it(
    url: str, tmp_path: Path
) -> None:
    """Its record has their text as its history, also when they are kept no longer."""
    async with archive(url, tmp_path) as kept:
        for id_, document in (("first", "a"), ("second", "b"), ("third", "c")):
            history = (await kept.history("s", 10)).sources
            sources = {("default", document)}
            kept.keep(new_answer(id_, "s", id_, "Answer", b"{}", sources, history=history))
        kept.keep(new_answer("apart", "t", "apart", "Answer", b"{}", {("default", "c")}))
        await kept.erase(rows.delete_answer, "first")
        await change(kept, "default", ["a"])
        assert await turns(kept, "s", 10) == []
        assert await turns(kept, "t", 10) == [("apart", "Answer")]


async def test_a_deleted_answer_is_in_no_file(tmp_path: Path) -> None:
    async with archive(f"sqlite:///{tmp_path / 'own.sqlite'}", tmp_path) as kept:
        kept.keep(new_answer("q", None, "SECRETQUESTION", "Answer", b"{}"))
        await kept.run(rows.find_answer, "q")
        await kept.erase(rows.delete_answer, "q")
        assert b"SECRETQUESTION" not in await asyncio.to_thread(content, tmp_path)


def content(folder: Path) -> bytes:
    """The bytes of every file."""
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


async def test_two_thousand_answers_of_as_many_sessions_are_kept_at_once(
    url: str, tmp_path: Path
) -> None:
    """Ten seconds' worth of 200 new sessions a second find a place in the queue."""
    bounds = Bounds(age_ms=60_000, answers=10_000, bytes=2**30, sessions=1_000)
    async with archive(url, tmp_path, bounds) as kept:
        for at in range(archives.WAITING):
            kept.keep(new_answer(f"q{at}", f"s{at}", "Question", "Answer", b"{}" * 1_000))
        kept.keep(new_answer("beyond", "s", "Question", "Answer", b"{}"))
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    assert await count(kept, SessionRow) == archives.WAITING
                    break
                except archives.DatabaseUnavailable:
                    await asyncio.sleep(0.05)
        assert kept.lost_counts == [1]  # type: ignore[attr-defined]
