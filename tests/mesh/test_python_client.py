"""`raglan.client` on a real mesh: every example of its page, and what a mock would not show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mesh_process
import pytest
from raglan.client import (
    AsyncClient,
    Client,
    Forbidden,
    NotFound,
    QueryReply,
    StreamDelta,
    StreamSources,
)

PAGE = Path(__file__).parents[2] / "docs/api/python.md"
TEXT = "The release manager signs off every release."


def test_every_example_of_the_page_runs(
    mesh: mesh_process.Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLAN_URL", mesh.url)
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    printed = []
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            capture_output=True, text=True, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, f"{example}\n{done.stderr}"
        printed.append(done.stdout)
    first, stream, gathered, uploaded, refused = printed
    assert f"1 release.md {TEXT}" in first
    assert re.search(r"confidence \d", stream)
    assert "'release.md'" in gathered
    assert "'handbook'" in gathered
    assert "succeeded" in uploaded
    assert "inline.txt 1" in uploaded
    assert re.search(r"'?nothing.md'?.* [0-9a-f]{16}", refused)
    with Client(mesh.url) as raglan:
        raglan.delete_collection("handbook")


async def test_a_stream_agrees_with_its_reply(mesh: mesh_process.Mesh, collection: str) -> None:
    async with AsyncClient(mesh.url) as raglan:
        documents = [{"id": "release.md", "text": TEXT, "metadata": {"team": "search"}}]
        job = await raglan.wait_for_job(await raglan.add_documents(collection, documents))
        assert (job.status, job.documents) == ("succeeded", 1)
        seen = []
        async with raglan.stream(
            "Who signs off a release?",
            collections=[collection],
            filter={"eq": {"field": "team", "value": "search"}},
            history=[{"role": "user", "text": "Hello."}],
        ) as events:
            seen = [event async for event in events]
        *_, reply = seen
        assert isinstance(reply, QueryReply)
        assert "".join(e.text for e in seen if isinstance(e, StreamDelta)) == reply.answer
        (sources,) = (e for e in seen if isinstance(e, StreamSources))
        assert sources.passages == reply.passages
        document = await raglan.get_document(collection, "release.md")
        cited = reply.citations[0]
        assert document.text[cited.start : cited.end] == cited.quote


def test_traces_jobs_and_deletions_are_read(mesh: mesh_process.Mesh, collection: str) -> None:
    with Client(mesh.url) as raglan:
        job_id = raglan.upload_files(collection, [("a.md", TEXT.encode())])
        assert raglan.wait_for_job(job_id).status == "succeeded"
        assert [job.id for job in raglan.list_jobs(collection=collection)] == [job_id]
        assert raglan.get_job(job_id).documents == 1
        reply = raglan.search("release", collections=[collection])
        assert reply.passages[0].collection == collection
        assert raglan.get_trace(reply.trace_id).trace_id == reply.trace_id
        assert raglan.list_traces(limit=1).in_memory is False
        gone = raglan.delete_documents(collection, ["a.md", "none"])
        assert gone.missing_ids == ["none"]
        assert list(raglan.iter_documents(collection)) == []
        with pytest.raises(Forbidden, match="RAGLAN_GATEWAY_URL_HOSTS"):
            raglan.add_urls(collection, ["https://docs.example.com/"])
        raglan.delete_collection(collection)
        with pytest.raises(NotFound, match=collection):
            raglan.get_collection(collection)


def test_documents_are_changed_without_their_text(mesh: mesh_process.Mesh, collection: str) -> None:
    with Client(mesh.url) as raglan:
        documents = [{"id": f"d{n}", "text": TEXT, "metadata": {"n": n}} for n in range(3)]
        raglan.wait_for_job(raglan.add_documents(collection, documents))
        changed = raglan.update_document(collection, "d0", metadata={"n": None, "team": "x"})
        assert changed.metadata == {"team": "x"}
        assert raglan.update_document(collection, "d0", metadata={}, replace=True).metadata == {}
        high = {"range": {"field": "n", "gte": 1}}
        assert [d.id for d in raglan.iter_documents(collection, filter=high)] == ["d1", "d2"]
        counted = raglan.tag_documents(collection, high, metadata={"team": "y"}, dry_run=True)
        assert (counted.matches, counted.is_exact, counted.job_id) == (2, True, None)
        done = raglan.tag_documents(collection, high, metadata={"team": "y"}, add_access=["hr"])
        assert raglan.wait_for_job(done.job_id or "").kind == "tag"
        assert raglan.get_document(collection, "d2").access == ["hr"]
        done = raglan.delete_by_filter(collection, {"eq": {"field": "team", "value": "y"}})
        raglan.wait_for_job(done.job_id or "")
        assert [d.id for d in raglan.iter_documents(collection)] == ["d0"]


def test_a_conversation_is_continued_rated_and_deleted(
    mesh: mesh_process.Mesh, collection: str
) -> None:
    with Client(mesh.url) as raglan:
        raglan.wait_for_job(raglan.add_documents(collection, [{"id": "a", "text": TEXT}]))
        session = raglan.create_session(title="Releases")
        questions = ["Who signs off a release?", "Why does the manager sign it off?"]
        first, second = (
            raglan.query(each, collections=[collection], session_id=session.id)
            for each in questions
        )
        page = raglan.get_session(session.id, limit=1)
        rest = raglan.get_session(session.id, after=page.next_after)
        turns = [*page.turns, *rest.turns]
        assert [each.question for each in turns] == questions
        assert [each.query_id for each in turns] == [first.id, second.id]
        assert raglan.rename_session(session.id, "Sign-off").title == "Sign-off"
        assert "Sign-off" in [each.title for each in raglan.list_sessions()]
        others = {raglan.create_session(title="Other").id for _ in range(3)}
        listed = [each.id for each in raglan.iter_sessions(page_size=2)]
        assert len(listed) == len(set(listed))
        assert set(listed) >= {session.id, *others}
        exported = raglan.export_session(session.id)
        assert [each.id for each in exported] == [first.id, second.id]
        assert exported[0] == raglan.get_past_query(first.id)
        rated = raglan.rate(first.id, "bad", reasons=["wrong_source"], text="Not this one.")
        past = raglan.get_past_query(first.id)
        assert past.feedback == rated
        assert past.reply["answer"] == first.answer
        assert raglan.delete_past_query(first.id).id == first.id
        assert raglan.delete_session(session.id).id == session.id
        with pytest.raises(NotFound, match=session.id):
            raglan.get_session(session.id)
