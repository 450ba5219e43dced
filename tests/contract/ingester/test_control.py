"""Cancel, retry, delete, and services that are away for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from raglan.errors import Conflict, InvalidInput, NotFound, Overloaded, Unavailable
from raglan.rpc import pages
from raglan.v1 import ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED
CANCELLED = ingester_pb2.JOB_STATUS_CANCELLED
RUNNING = ingester_pb2.JOB_STATUS_RUNNING


async def test_a_cancelled_job_stops_and_leaves_no_half_documents(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    embedder.gate.clear()
    job = await ingester.submit({f"d{n:03}": f"Text {n}. " * 200 for n in range(50)})
    await until(lambda: embedder.in_flight > 0)

    await ingester.call(ingester.stub.CancelJob, ingester_pb2.GetJobRequest(id=job.id))
    job = await ingester.ended(job)

    assert job.status == CANCELLED
    assert job.errors == []
    assert retriever.collections["default"] == {}
    assert "cancelled" in (await ingester.document("d001")).error


async def test_what_was_being_indexed_when_the_job_was_cancelled_is_completed(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    retriever.gate.clear()
    job = await ingester.submit({"a": "Words here. " * 400})
    await until(lambda: retriever.upserts == 1)

    await ingester.call(ingester.stub.CancelJob, ingester_pb2.GetJobRequest(id=job.id))
    retriever.gate.set()
    job = await ingester.ended(job)

    stored = await ingester.document("a")
    assert stored.status == ingester_pb2.DOCUMENT_STATUS_READY
    assert stored.chunks == len(retriever.chunks("default", "a"))


async def test_a_cancelled_job_can_be_taken_up_again(
    ingester: Any, embedder: Any, until: Any
) -> None:
    embedder.gate.clear()
    job = await ingester.submit({"a": "Alpha.", "b": "Beta."})
    await until(lambda: embedder.in_flight > 0)
    request = ingester_pb2.GetJobRequest(id=job.id)
    await ingester.call(ingester.stub.CancelJob, request)
    await ingester.ended(job)
    embedder.gate.set()

    await ingester.call(ingester.stub.RetryJob, request)
    job = await ingester.ended(job)

    assert job.status == SUCCEEDED
    assert (await ingester.document("b")).text == "Beta."


async def test_cancelling_a_job_that_has_ended_changes_nothing(ingester: Any) -> None:
    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    again = await ingester.call(ingester.stub.CancelJob, ingester_pb2.GetJobRequest(id=job.id))

    assert again == job


async def test_a_retry_runs_only_what_failed(ingester: Any, embedder: Any) -> None:
    embedder.error = lambda texts: (
        InvalidInput("This text is poison.") if "Poison." in texts else None
    )
    job = await ingester.ended(await ingester.submit({"good": "Fine.", "bad": "Poison."}))
    assert [(e.document_id, e.message) for e in job.errors] == [("bad", "This text is poison.")]
    assert job.status == ingester_pb2.JOB_STATUS_PARTIAL
    embedder.error = lambda texts: None
    embedder.texts.clear()

    await ingester.call(ingester.stub.RetryJob, ingester_pb2.GetJobRequest(id=job.id))
    job = await ingester.ended(job)

    assert (job.status, list(job.errors), embedder.texts) == (SUCCEEDED, [], ["Poison."])


async def test_a_job_that_runs_cannot_be_retried(ingester: Any, embedder: Any, until: Any) -> None:
    embedder.gate.clear()
    job = await ingester.submit({"a": "Alpha."})
    await until(lambda: embedder.in_flight > 0)

    with pytest.raises(Conflict, match="is running"):
        await ingester.call(ingester.stub.RetryJob, ingester_pb2.GetJobRequest(id=job.id))


async def test_a_document_deleted_while_it_is_embedded_does_not_reappear(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    embedder.gate.clear()
    job = await ingester.submit({"a": "Alpha.", "b": "Beta."})
    await until(lambda: embedder.in_flight > 0)

    await ingester.delete("a")
    embedder.gate.set()
    job = await ingester.ended(job)

    assert job.status == SUCCEEDED
    assert [chunk.document_id for chunk in retriever.collections["default"].values()] == ["b"]
    with pytest.raises(NotFound):
        await ingester.document("a")


async def test_a_document_deleted_while_it_is_indexed_does_not_reappear(
    ingester: Any, retriever: Any, until: Any
) -> None:
    retriever.gate.clear()
    job = await ingester.submit({"a": "Alpha."})
    await until(lambda: retriever.upserts == 1)

    deleting = asyncio.create_task(ingester.delete("a"))
    retriever.gate.set()
    await deleting
    await ingester.ended(job)

    assert retriever.collections["default"] == {}
    with pytest.raises(NotFound):
        await ingester.document("a")


async def test_a_deleted_document_is_gone_with_its_bytes(ingester: Any, retriever: Any) -> None:
    await ingester.ended(
        await ingester.submit({"a": "Alpha.", "same": "Shared.", "too": "Shared."})
    )

    deleted = await ingester.delete("a")
    await ingester.delete("same")

    assert deleted.deleted_chunks == 1
    assert retriever.chunks("default", "a") == []
    blobs = ingester.settings.data_dir / "blobs"
    assert [p.read_text() for p in blobs.rglob("*") if p.is_file()] == ["Shared."]


async def test_the_last_submission_of_a_document_wins(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    embedder.gate.clear()
    first = await ingester.submit({"a": "First."})
    await until(lambda: embedder.in_flight == 1)
    second = await ingester.submit({"a": "Second."})
    await until(lambda: embedder.in_flight == 2)
    embedder.gate.set()

    await ingester.ended(first)
    await ingester.ended(second)

    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["Second."]
    assert (await ingester.document("a")).text == "Second."


async def test_deleting_a_collections_documents_stops_its_jobs(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"old": "Old."}))
    embedder.gate.clear()
    job = await ingester.submit({"a": "Alpha.", "b": "Beta."})
    await until(lambda: embedder.in_flight > 0)

    reply = await ingester.call(
        ingester.stub.DeleteDocuments, ingester_pb2.DeleteDocumentsRequest(collection="default")
    )

    assert reply.deleted_documents == 3
    assert (await ingester.job(job.id)).status == CANCELLED
    assert retriever.collections["default"] == {}


async def test_an_embedder_that_is_away_for_a_while_fails_no_document(
    ingester: Any, embedder: Any
) -> None:
    errors = [Unavailable("Down."), Overloaded("Full.", retry_after_s=0.05)] * 2
    embedder.error = lambda texts: errors.pop() if errors else None

    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    assert (job.status, errors) == (SUCCEEDED, [])


async def test_a_retriever_that_is_away_for_a_while_fails_no_document(
    ingester: Any, retriever: Any, until: Any
) -> None:
    errors = ["Upsert", "Upsert", "CountChunks"]

    def error(method: str) -> Exception | None:
        if method in errors:
            errors.remove(method)
            return Unavailable("Down.")
        return None

    retriever.error = error

    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    assert (job.status, errors) == (SUCCEEDED, [])


async def test_documents_are_listed_in_pages_by_id(ingester: Any) -> None:
    await ingester.ended(await ingester.submit({id_: f"Text {id_}." for id_ in "cab"}))

    async def page(after: str) -> Any:
        request = ingester_pb2.ListDocumentsRequest(collection="default", limit=2, after=after)
        return await ingester.call(ingester.stub.ListDocuments, request)

    first = await page("")
    second = await page(first.next_after)
    assert [d.id for d in first.documents] == ["a", "b"]
    assert [d.id for d in second.documents] == ["c"]
    assert second.next_after == ""
    assert first.documents[0].text == ""


async def test_jobs_are_listed_newest_first(ingester: Any) -> None:
    jobs = [await ingester.ended(await ingester.submit({"a": f"Text {n}."})) for n in range(3)]

    reply = await ingester.call(
        ingester.stub.ListJobs, ingester_pb2.ListJobsRequest(collection="default", limit=2)
    )

    assert [job.id for job in reply.jobs] == [jobs[2].id, jobs[1].id]


async def test_a_small_job_gets_its_turn_beside_large_ones_of_another_collection(
    ingester: Any, embedder: Any, retriever: Any, until: Any
) -> None:
    retriever.add_collection("small")
    embedder.gate.clear()
    large = [await ingester.submit({f"large{n}": f"Words {n}. " * 100_000}) for n in range(3)]
    await until(lambda: embedder.in_flight == 4)

    small = await ingester.submit({"note": "A small note."}, "small")

    async def parsed() -> bool:
        return bool((await ingester.job(small.id)).stages[0].done)

    await until(parsed)
    embedder.gate.set()
    assert (await ingester.ended(small)).status == SUCCEEDED
    # Four calls under way and four that wait, of each of the two jobs that run.
    assert embedder.texts.index("A small note.") < 20 * 32
    assert (await ingester.job(large[2].id)).status != SUCCEEDED
    for job in large:
        await ingester.call(ingester.stub.CancelJob, ingester_pb2.GetJobRequest(id=job.id))
        await ingester.ended(job)


async def test_the_progress_of_one_large_document_grows_call_by_call(
    ingester: Any, embedder: Any, until: Any
) -> None:
    calls = 0

    def error(texts: list[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            embedder.gate.clear()

    embedder.error = error
    job = await ingester.submit({"large": "Some words. " * 40_000})

    async def some_embedded() -> bool:
        stages = {stage.stage: stage for stage in (await ingester.job(job.id)).stages}
        return 0 < stages["embed"].done < stages["embed"].total

    await until(some_embedded)
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED


async def test_a_watched_job_shows_its_progress_as_it_goes(
    ingester: Any, embedder: Any, until: Any
) -> None:
    embedder.gate.clear()
    job = await ingester.submit({f"d{n}": f"Text {n}." for n in range(5)})

    async def parsed() -> bool:
        stages = {stage.stage: stage for stage in (await ingester.job(job.id)).stages}
        return bool(stages["parse"].done == 5 and stages["embed"].done == 0)

    await until(parsed)
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED


async def test_a_long_text_is_read_in_parts(ingester: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "One sentence of many. " * 5
    await ingester.ended(await ingester.submit({"a": text}))
    whole = (await ingester.document("a")).text
    monkeypatch.setattr(pages, "PAGE_CHARS", 40)
    parts, offset = [], 0
    while True:
        request = ingester_pb2.GetDocumentRequest(
            collection="default", document_id="a", text_offset=offset
        )
        found = await ingester.call(ingester.stub.GetDocument, request)
        parts.append(found.text)
        offset = found.next_text_offset
        if not offset:
            break
    assert len(parts) == 3
    assert "".join(parts) == whole


async def test_a_page_of_large_documents_holds_fewer(
    ingester: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingester.ended(await ingester.submit({id_: f"Text {id_}." for id_ in "abc"}))
    monkeypatch.setattr(pages, "PAGE_BYTES", 1)
    seen, after = [], ""
    while True:
        request = ingester_pb2.ListDocumentsRequest(collection="default", limit=2, after=after)
        page = await ingester.call(ingester.stub.ListDocuments, request)
        seen.append([document.id for document in page.documents])
        after = page.next_after
        if not after:
            break
    assert seen == [["a"], ["b"], ["c"]]


async def test_a_deletion_does_not_wait_for_an_index_that_refuses_writes(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Alpha."}))
    tries: list[str] = []

    def refuses_writes(method: str) -> Exception | None:
        if method != "Upsert":
            return None
        tries.append(method)
        return Unavailable("The index takes no writes.")

    retriever.error = refuses_writes
    job = await ingester.submit({"b": "Beta."})
    await until(lambda: asyncio.sleep(0, len(tries) >= 3))

    assert (await ingester.delete("a")).deleted_chunks == 1

    retriever.error = lambda method: None
    assert (await ingester.ended(job)).status == SUCCEEDED
    assert [chunk.text for chunk in retriever.chunks("default", "b")] == ["Beta."]


@pytest.mark.parametrize("made_anew", [False, True])
async def test_an_upload_whose_collection_goes_meanwhile_leaves_no_document(
    ingester: Any, retriever: Any, made_anew: bool
) -> None:
    retriever.add_collection("fleeting")
    asked = asyncio.Event()
    retriever.error = lambda method: asked.set()

    async def parts() -> Any:
        yield ingester_pb2.SubmitRequest(job=ingester_pb2.JobHeader(collection="fleeting"))
        await asked.wait()
        head = ingester_pb2.DocumentHeader(document_id="a", media_type="text/plain")
        yield ingester_pb2.SubmitRequest(document=head)
        yield ingester_pb2.SubmitRequest(data=b"Alpha.")
        del retriever.collections["fleeting"]
        if made_anew:
            retriever.add_collection("fleeting")

    with pytest.raises(NotFound):
        await ingester.call(ingester.stub.Submit, parts())

    retriever.add_collection("fleeting")
    request = ingester_pb2.ListDocumentsRequest(collection="fleeting")
    assert not (await ingester.call(ingester.stub.ListDocuments, request)).documents
