"""Submissions, edits and jobs by filter: whatever runs when, the result is that of their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from labelled_documents import change, document, eq, ingest, listed, update
from raglan.errors import Conflict, InvalidInput, NotFound, Unavailable
from raglan.v1 import ingester_pb2, retriever_pb2
from raglan_ingester.change_store import ChangeStore
from raglan_ingester.model import ATTEMPTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED, PARTIAL = ingester_pb2.JOB_STATUS_SUCCEEDED, ingester_pb2.JOB_STATUS_PARTIAL
FAILED = ingester_pb2.JOB_STATUS_FAILED
LIMIT = 250
SWEEP_S = 0.5
"""Between two attempts to bring labels to the index."""


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    # One job of a collection at a time, so that what runs first is known.
    return {
        "concurrent_jobs": 1,
        "max_changed_documents": LIMIT,
        "worker_lease_s": 3 * SWEEP_S,
    }


def labels(retriever: Any, id_: str) -> set[tuple[str, ...]]:
    return {(c.metadata_json, *c.access) for c in retriever.chunks("default", id_)}


async def retry(ingester: Any, job: Any, held: Any = None) -> Any:
    request = ingester_pb2.GetJobRequest(id=job.id)
    return await ingester.call(ingester.stub.RetryJob, request, held=held)


async def test_a_job_by_filter_leaves_alone_what_is_submitted_after_it(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    await ingest(ingester, document("a", {"v": "1"}), document("b", {"v": "1"}))
    embedder.gate.clear()
    first = await ingester.submit([document("blocks")])  # the collection's only turn
    deletion = (await change(ingester, eq("v", "1"), allow_all=True)).job
    again = await ingester.submit([document("a", {"v": "1"}), document("c", {"v": "1"})])
    embedder.gate.set()
    assert (await ingester.ended(first)).status == SUCCEEDED
    done = await ingester.ended(deletion)
    assert (done.status, done.stages[0].done) == (SUCCEEDED, 1)
    assert ["2 of the documents were submitted after" in w.message for w in done.warnings] == [True]
    assert (await ingester.ended(again)).status == SUCCEEDED
    assert (await listed(ingester))[0] == ["a", "blocks", "c"]
    assert (len(retriever.chunks("default", "a")), retriever.chunks("default", "b")) == (1, [])

    tagging = ingester_pb2.DocumentTagging(add_access=["hr"])
    job = (await change(ingester, eq("v", "1"), tagging=tagging)).job
    assert (await ingester.ended(job)).stages[0].done == 2  # both are older than this one


async def test_an_edit_before_the_job_of_a_submission_ends_is_made_to_the_submission(
    ingester: Any, retriever: Any, embedder: Any
) -> None:
    await ingest(ingester, document("a", {"v": 1, "old": True}, ["hr"]))
    embedder.gate.clear()
    job = await ingester.submit([document("a", {"v": 2, "x": 1}, ["legal"])])
    await update(ingester, "a", metadata={"edited": True, "x": None})
    assert labels(retriever, "a") == {('{"edited":true,"old":true,"v":1}', "hr")}
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED
    assert labels(retriever, "a") == {('{"edited":true,"v":2}', "legal")}
    stored = await ingester.document("a")
    assert (stored.metadata_json, list(stored.access)) == ('{"edited":true,"v":2}', ["legal"])

    embedder.gate.clear()
    job = await ingester.submit([document("a", {"v": 3})])  # names no tags
    await update(ingester, "a", access=["board"])
    await update(ingester, "a", metadata={"v": 2})  # changes the submission alone
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED
    assert labels(retriever, "a") == {('{"v":2}', "board")}

    await ingest(ingester, document("a", {"v": 3}))  # after the edits
    assert labels(retriever, "a") == {('{"v":3}', "board")}


async def test_edits_hold_through_the_documents_own_metadata_and_a_retry(
    ingester: Any, retriever: Any, embedder: Any
) -> None:
    def page(body: str) -> tuple[Any, bytes]:
        text = f"---\nauthor: Ann\nkind: memo\n---\n\n# Title\n\n{body}\n"
        head = ingester_pb2.DocumentHeader(document_id="a", media_type="text/markdown")
        return head, text.encode()

    await ingest(ingester, page("First words."))
    embedder.error = lambda texts: InvalidInput("Refused.")
    job = await ingester.ended(await ingester.submit([page("Other words.")]))
    assert job.status == FAILED
    for n in range(20):  # more than are kept one by one
        await update(ingester, "a", metadata={f"f{n}": n})
    await update(ingester, "a", metadata={"author": None, "kind": "note"})
    embedder.error = lambda texts: None
    await retry(ingester, job)
    assert (await ingester.ended(job)).status == SUCCEEDED
    held = json.loads((await ingester.document("a")).metadata_json)
    assert (held["f19"], held["kind"], held.get("author")) == (19, "note", None)
    assert {json.dumps(held, separators=(",", ":"))} == {one for (one,) in labels(retriever, "a")}


@pytest.mark.parametrize("tagging", [None, ingester_pb2.DocumentTagging(add_access=["hr"])])
async def test_a_job_by_filter_that_breaks_off_fails_and_goes_on_by_a_retry(
    ingester: Any, monkeypatch: pytest.MonkeyPatch, tagging: Any
) -> None:
    await ingest(ingester, *(document(f"d{n:03}", {"v": "1"}) for n in range(230)))
    apply, calls = ChangeStore.apply, 0

    async def breaks(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 3):
            raise RuntimeError("a bug")
        return await apply(*arguments, **named)

    monkeypatch.setattr(ChangeStore, "apply", breaks)
    job = (await change(ingester, eq("v", "1"), tagging=tagging, allow_all=True)).job
    done = await ingester.ended(job)
    assert (done.status, done.stages[0].done) == (FAILED, 0)
    assert ["error of its own" in each.message for each in done.warnings] == [True]
    await retry(ingester, job)
    done = await ingester.ended(job)
    assert (done.status, done.stages[0].done) == (PARTIAL, 100)
    await retry(ingester, job)
    done = await ingester.ended(job)
    assert (done.status, done.stages[0].done, list(done.warnings)) == (SUCCEEDED, 230, [])


async def test_an_index_that_is_away_does_not_change_the_count(
    ingester: Any, retriever: Any
) -> None:
    await ingest(ingester, *(document(f"d{n:03}", {"v": "1"}) for n in range(130)))
    failures = iter([Unavailable("away")] * 3)
    retriever.error = lambda method: next(failures, None) if method == "Delete" else None
    job = (await change(ingester, eq("v", "1"), allow_all=True)).job
    done = await ingester.ended(job)
    assert (done.status, done.stages[0].done, done.stages[0].total) == (SUCCEEDED, 130, 130)
    assert retriever.collections["default"] == {}


async def test_a_document_that_the_index_refuses_keeps_no_other_from_its_turn(
    ingester: Any, retriever: Any, until: Callable[..., Any]
) -> None:
    await ingest(ingester, *(document(f"d{n}", {"v": "1"}) for n in range(5)))

    retriever.refused = "d2"
    tagging = ingester_pb2.DocumentTagging(add_access=["hr"])
    job = (await change(ingester, eq("v", "1"), tagging=tagging, allow_all=True)).job
    done = await ingester.ended(job)
    assert done.status == PARTIAL
    assert [each.document_id for each in done.warnings] == ["d2"]
    tags = {c.document_id: [*c.access] for c in retriever.collections["default"].values()}
    assert tags == {f"d{n}": [] if n == 2 else ["hr"] for n in range(5)}

    refusals = 3 + ATTEMPTS - 1  # with two others, with one, and alone
    await until(lambda: retriever.refusals == refusals, 30)
    with pytest.raises(TimeoutError):
        await until(lambda: retriever.refusals > refusals, 4 * SWEEP_S)
    (warning,) = (await ingester.document("d2")).warnings
    assert (await ingester.revisions("default"))[1] == []
    assert "refused" in warning
    retriever.refused = ""
    await update(ingester, "d2", metadata={"v": "2"})
    assert labels(retriever, "d2") == {('{"v":"2"}', "hr")}
    assert list((await ingester.document("d2")).warnings) == []


async def test_unfinished_deletions_of_one_collection_keep_no_other_from_its_turn(
    ingester: Any, retriever: Any, until: Callable[..., Any]
) -> None:
    retriever.add_collection("small")
    for name in ("default", "small"):
        await ingester.ended(await ingester.submit({"a": "Some words."}, name))
    retriever.error = lambda method: Unavailable("away") if method == "Delete" else None
    for name in ("default", "small"):
        with pytest.raises(Unavailable):
            await ingester.delete("a", name)
    retriever.error = lambda method: None
    retriever.broken = {"default"}
    await until(lambda: not retriever.chunks("small", "a"), 20)
    assert retriever.chunks("default", "a")


async def test_a_job_is_seen_by_those_who_reach_its_documents(ingester: Any) -> None:
    everyone = await ingest(ingester, document("open"))
    secret = await ingest(ingester, document("secret", {}, ["hr"]), document("other"))
    await update(ingester, "open", metadata={"v": "1"})
    tagging = ingester_pb2.DocumentTagging(metadata_json='{"w":1}')
    by_all = (await change(ingester, eq("v", "1"), tagging=tagging)).job
    by_none = (await change(ingester, eq("v", "1"), (), tagging=tagging, allow_all=True)).job
    for job in (by_all, by_none):
        assert (await ingester.ended(job)).status == SUCCEEDED

    async def seen(held: Any) -> list[str]:
        request = ingester_pb2.ListJobsRequest(collection="default", limit=4)
        jobs = (await ingester.call(ingester.stub.ListJobs, request, held=held)).jobs
        return [each.id for each in jobs]

    ours = [by_none.id, by_all.id, secret.id, everyone.id]
    assert await seen(None) == ours
    assert [id_ for id_ in await seen(("hr",)) if id_ in ours] == [ours[0], *ours[2:]]
    assert [id_ for id_ in await seen(()) if id_ in ours] == [ours[0], ours[3]]
    for id_ in (secret.id, by_all.id):
        request = ingester_pb2.GetJobRequest(id=id_)
        for method in ("GetJob", "RetryJob", "CancelJob"):
            with pytest.raises(NotFound):
                await ingester.call(getattr(ingester.stub, method), request, held=("board",))
    request = ingester_pb2.GetJobRequest(id=everyone.id)
    assert (await ingester.call(ingester.stub.GetJob, request, held=())).status == SUCCEEDED


async def test_everything_is_matched_however_few_documents_a_job_may_change(ingester: Any) -> None:
    await ingest(ingester, *(document(f"d{n:03}", {"v": "1"}) for n in range(LIMIT + 50)))
    await ingest(ingester, document("secret", {"v": "1"}, ["hr"]))
    for held in (None, ()):
        with pytest.raises(Conflict, match="matches every document"):
            await change(ingester, eq("v", "1"), held)
    job = (await change(ingester, eq("v", "1"), allow_all=True)).job
    done = await ingester.ended(job)
    assert (done.status, done.stages[0].done, done.stages[0].total) == (PARTIAL, LIMIT, LIMIT + 51)
    assert "MAX_CHANGED_DOCUMENTS" in done.warnings[0].message
    await retry(ingester, job)
    assert (await ingester.ended(job)).status == SUCCEEDED
    assert (await listed(ingester))[0] == []


async def test_metadata_that_replace_may_hold_null(ingester: Any) -> None:
    await ingest(ingester, document("a", {"v": 1}))
    row = await update(ingester, "a", metadata={"none": None}, replace=True)
    assert json.loads(row.metadata_json) == {"none": None}
    exists = retriever_pb2.Condition(field="v", exists=True)
    assert (await listed(ingester, filter=retriever_pb2.Filter(condition=exists)))[0] == []
