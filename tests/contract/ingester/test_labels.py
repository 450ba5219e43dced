"""Metadata and access tags of stored documents, one by one and by filter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from labelled_documents import change, document, eq, ingest, listed, update
from raglan.errors import Conflict, Forbidden, InvalidInput, NotFound, PayloadTooLarge, Unavailable
from raglan.v1 import ingester_pb2, retriever_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED, PARTIAL = ingester_pb2.JOB_STATUS_SUCCEEDED, ingester_pb2.JOB_STATUS_PARTIAL


async def test_metadata_are_merged_or_replaced_without_a_text_embedded(
    ingester: Any, retriever: Any, embedder: Any
) -> None:
    await ingest(ingester, document("a", {"team": "x", "at": {"floor": 1, "room": 2}}))
    embedded = list(embedder.texts)
    row = await update(ingester, "a", metadata={"team": None, "at": {"room": 3}, "new": [1]})
    expected = {"at": {"floor": 1, "room": 3}, "new": [1]}
    assert json.loads(row.metadata_json) == expected
    (chunk,) = retriever.chunks("default", "a")
    assert json.loads(chunk.metadata_json) == expected
    await update(ingester, "a", metadata={"only": 1}, replace=True)
    assert json.loads(retriever.chunks("default", "a")[0].metadata_json) == {"only": 1}
    assert json.loads((await ingester.document("a")).metadata_json) == {"only": 1}
    calls = retriever.label_calls
    await update(ingester, "a", metadata={"only": 1})  # nothing to do
    assert (retriever.label_calls, embedder.texts) == (calls, embedded)


async def test_what_is_refused_changes_nothing(ingester: Any, retriever: Any) -> None:
    await ingest(ingester, document("a", {"v": 1}))
    with pytest.raises(PayloadTooLarge):
        await update(ingester, "a", metadata={"big": "x" * 70_000})
    for access in (["x" * 10_000], ["a b"], [f"t{n}" for n in range(1_000)]):
        with pytest.raises(InvalidInput):
            await update(ingester, "a", access=access)
    with pytest.raises(InvalidInput, match="changes nothing"):
        await update(ingester, "a")
    with pytest.raises(NotFound):
        await update(ingester, "none", metadata={})
    assert json.loads(retriever.chunks("default", "a")[0].metadata_json) == {"v": 1}


async def test_an_update_while_the_index_is_away_is_brought_to_it_later(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingest(ingester, document("a", {"v": 1}))
    retriever.error = lambda method: Unavailable("away") if method == "LabelDocuments" else None
    with pytest.raises(Unavailable):
        await update(ingester, "a", metadata={"v": 2})
    assert json.loads((await ingester.document("a")).metadata_json) == {"v": 2}
    assert (await ingester.revisions("default"))[1] == ["default"]
    retriever.error = lambda method: None
    await until(
        lambda: json.loads(retriever.chunks("default", "a")[0].metadata_json) == {"v": 2}, 20
    )

    async def is_finished() -> bool:
        return (await ingester.revisions("default"))[1] == []

    await until(is_finished)


async def test_a_submission_after_an_update_replaces_it_and_one_before_does_not(
    ingester: Any, retriever: Any, embedder: Any
) -> None:
    await ingest(ingester, document("a", {"v": 1}, ["hr"]))
    await update(ingester, "a", metadata={"v": 2}, access=["legal"])
    await ingest(ingester, document("a", {"v": 1}))
    (chunk,) = retriever.chunks("default", "a")
    assert (json.loads(chunk.metadata_json), list(chunk.access)) == ({"v": 1}, ["legal"])

    embedder.gate.clear()  # holds the next one between submission and index
    job = await ingester.submit([document("a", {"v": 3}, ["hr"])])
    await update(ingester, "a", metadata={"v": 4}, access=["board"])
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED
    chunks = retriever.chunks("default", "a")
    assert {(c.metadata_json, *c.access) for c in chunks} == {('{"v":4}', "board")}
    stored = await ingester.document("a")
    assert (stored.metadata_json, list(stored.access)) == ('{"v":4}', ["board"])


async def test_tags_hide_a_document_from_callers_without_them(ingester: Any) -> None:
    await ingest(ingester, document("open"), document("secret", {}, ["hr", "legal"]))
    get = ingester_pb2.GetDocumentRequest(collection="default", document_id="secret")
    for held in ((), ("board",)):
        assert await listed(ingester, held) == (["open"], "")
        for method in (ingester.stub.GetDocument, ingester.stub.DeleteDocument):
            with pytest.raises(NotFound):
                await ingester.call(method, get, held=held)
        with pytest.raises(NotFound):
            await update(ingester, "secret", held, metadata={"v": 1})
        with pytest.raises(Forbidden, match="secret"):
            await ingester.call(ingester.stub.Submit, _submission("secret"), held=held)
        with pytest.raises(Forbidden):
            whole = ingester_pb2.DeleteDocumentsRequest(collection="default")
            await ingester.call(ingester.stub.DeleteDocuments, whole, held=held)
        gone = await change(ingester, eq("document_id", "secret"), held, dry_run=True)
        assert gone.matches == 0
    assert await listed(ingester, ("legal",)) == (["open", "secret"], "")
    with pytest.raises(Forbidden, match="board"):
        await update(ingester, "open", ("legal",), access=["board"])
    assert list((await ingester.document("secret")).access) == ["hr", "legal"]


async def _submission(id_: str) -> Any:
    yield ingester_pb2.SubmitRequest(job=ingester_pb2.JobHeader(collection="default"))
    head, data = document(id_)
    yield ingester_pb2.SubmitRequest(document=head)
    yield ingester_pb2.SubmitRequest(data=data)


async def test_lists_take_filters_and_their_cursor_is_stable(ingester: Any) -> None:
    pairs = [document(f"d{n:02}", {"even": "yes" if n % 2 == 0 else "no"}) for n in range(11)]
    await ingest(ingester, *pairs)
    even = eq("even", "yes")
    assert await listed(ingester, filter=even) == ([f"d{n:02}" for n in range(0, 11, 2)], "")
    first, after = await listed(ingester, filter=even, limit=2)
    assert (first, after) == (["d00", "d02"], "d02")
    await ingester.delete("d02")
    await ingest(ingester, document("d01x", {"even": "yes"}))  # before the cursor
    assert (await listed(ingester, filter=even, limit=2, after=after))[0] == ["d04", "d06"]
    missing = retriever_pb2.Filter(negated=retriever_pb2.Filter(condition=_exists("nothing")))
    assert len((await listed(ingester, filter=missing))[0]) == 11
    assert await listed(ingester, filter=eq("no_such_field", "x")) == ([], "")


def _exists(field: str) -> Any:
    return retriever_pb2.Condition(field=field, exists=True)


async def test_documents_are_tagged_and_deleted_by_filter(
    ingester: Any, retriever: Any, embedder: Any
) -> None:
    pairs = [document(f"d{n:03}", {"team": "a" if n < 150 else "b"}) for n in range(200)]
    await ingest(ingester, *pairs)
    embedded = len(embedder.texts)
    dry = await change(ingester, eq("team", "a"), dry_run=True)
    assert (dry.matches, dry.is_exact, dry.HasField("job")) == (150, True, False)
    assert list(dry.document_ids) == [f"d{n:03}" for n in range(20)]

    tagging = ingester_pb2.DocumentTagging(metadata_json='{"year":2026}', add_access=["hr"])
    job = (await change(ingester, eq("team", "a"), tagging=tagging)).job
    done = await ingester.ended(job)
    assert (done.status, done.kind, done.documents) == (SUCCEEDED, "tag", 150)
    assert [(s.stage, s.done, s.total) for s in done.stages] == [("tag", 150, 150)]
    assert list(retriever.chunks("default", "d149")[0].access) == ["hr"]
    assert list(retriever.chunks("default", "d150")[0].access) == []
    assert len(embedder.texts) == embedded
    assert not done.keeps_access
    tagging = ingester_pb2.DocumentTagging(metadata_json='{"year":2027}')
    job = (await change(ingester, eq("team", "b"), tagging=tagging)).job
    assert (await ingester.ended(job)).keeps_access

    job = (await change(ingester, eq("team", "b"))).job
    done = await ingester.ended(job)
    assert (done.status, done.kind, done.keeps_access) == (SUCCEEDED, "delete", False)
    assert len((await listed(ingester, limit=1000))[0]) == 150
    assert retriever.chunks("default", "d150") == []


async def test_a_filter_that_matches_everything_needs_to_be_allowed(ingester: Any) -> None:
    await ingest(ingester, document("a", {"v": "1"}), document("b", {"v": "1"}))
    with pytest.raises(Conflict, match="matches every document"):
        await change(ingester, eq("v", "1"))
    with pytest.raises(InvalidInput):
        await change(ingester, None)
    assert len((await listed(ingester))[0]) == 2
    assert not (await change(ingester, eq("v", "none"))).HasField("job")
    job = (await change(ingester, eq("v", "1"), allow_all=True)).job
    assert (await ingester.ended(job)).status == SUCCEEDED
    assert (await listed(ingester))[0] == []


async def test_a_job_by_filter_names_documents_that_it_could_not_change(ingester: Any) -> None:
    await ingest(ingester, document("a", {"v": "1"}), document("b", {"v": "1", "x": "y" * 60_000}))
    tagging = ingester_pb2.DocumentTagging(metadata_json=json.dumps({"z": "z" * 6_000}))
    job = (await change(ingester, eq("v", "1"), tagging=tagging, allow_all=True)).job
    done = await ingester.ended(job)
    assert done.status == PARTIAL
    assert [each.document_id for each in done.warnings] == ["b"]
