"""What cannot work is refused at once, or fails alone with a sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from raglan.errors import InvalidInput, NotFound
from raglan.v1 import ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

Header = ingester_pb2.DocumentHeader
Request = ingester_pb2.SubmitRequest


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * 32 * 1024 * 1024)
    return buffer.getvalue()


def nested(levels: int) -> dict[str, Any]:
    """Metadata of so many objects inside each other."""
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


async def messages(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def test_a_document_that_cannot_be_read_fails_alone_with_its_reason(ingester: Any) -> None:
    job = await ingester.ended(
        await ingester.submit(
            [
                (Header(filename="good.txt"), b"Fine."),
                (Header(filename="noise.txt"), bytes(range(256)) * 20),
                (Header(filename="broken.pdf"), b"%PDF-1.7 nothing more"),
                (Header(filename="bomb.docx"), bomb()),
                (Header(filename="empty.md"), b""),
                (Header(filename="tool.exe"), b"MZ\x90"),
                (Header(filename="null.txt"), b"before\0after"),
                (Header(filename="scripts.txt"), "नमस्ते 你好".encode()),
            ]
        )
    )

    assert job.status == ingester_pb2.JOB_STATUS_PARTIAL
    reasons = {error.document_id: error.message for error in job.errors}
    assert reasons.keys() == {
        "noise.txt", "broken.pdf", "bomb.docx", "empty.md", "tool.exe", "null.txt",
    }  # fmt: skip
    assert reasons["empty.md"] == "The file is empty."
    assert "(.exe)" in reasons["tool.exe"]
    assert "null characters" in reasons["null.txt"]
    assert (await ingester.document("scripts.txt")).text == "नमस्ते 你好"
    failed = await ingester.document("bomb.docx")
    assert failed.status == ingester_pb2.DOCUMENT_STATUS_FAILED
    assert failed.error == reasons["bomb.docx"]


async def test_a_job_of_which_nothing_could_be_read_has_failed(ingester: Any) -> None:
    job = await ingester.submit_file("a.pdf", b"")

    assert job.status == ingester_pb2.JOB_STATUS_FAILED


async def test_a_new_version_that_cannot_be_read_leaves_the_old_one_in_place(
    ingester: Any, retriever: Any
) -> None:
    await ingester.submit_file("a.txt", b"Old.")

    job = await ingester.submit_file("a.txt", b"")

    assert job.status == ingester_pb2.JOB_STATUS_FAILED
    stored = await ingester.document("a.txt")
    assert (stored.status, stored.text) == (ingester_pb2.DOCUMENT_STATUS_READY, "Old.")
    assert [chunk.text for chunk in retriever.chunks("default", "a.txt")] == ["Old."]


async def test_two_documents_with_one_id_are_refused_by_name(ingester: Any) -> None:
    with pytest.raises(InvalidInput, match="Two documents of the job have the id 'twice'"):
        await ingester.submit(
            [(Header(document_id="twice"), b"1"), (Header(filename="twice"), b"2")]
        )


async def test_an_unknown_collection_is_not_found(ingester: Any) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await ingester.submit({"a": "Alpha."}, "nowhere")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (Header(), "neither an id nor a file name"),
        (Header(document_id="a\0b"), "control character"),
        (Header(document_id="a\nb"), "control character"),
        (Header(document_id="x" * 513), "513 characters; 1 to 512"),
        (Header(document_id="a", metadata_json="[1]"), "not a JSON object"),
        (Header(document_id="a", metadata_json='{"a": NaN}'), "not a JSON object"),
        (Header(document_id="a", metadata_json="{"), "not a JSON object"),
        (Header(document_id="a", title="t" * 2001), "title of 'a' has 2001 characters"),
        (Header(document_id="a", filename="f\0"), "null character"),
    ],
)
async def test_a_bad_header_is_refused_with_a_sentence(ingester: Any, head: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await ingester.submit([(head, b"text")])

    assert says in caught.value.message


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        ([], "no documents"),
        ([Request(document=Header(document_id="a"))], "must be the job's header"),
        ([Request(data=b"x")], "before any document"),
        ([Request(job=ingester_pb2.JobHeader())], "names no collection"),
        ([Request(job=ingester_pb2.JobHeader(collection="default"))], "no documents"),
        ([Request(job=ingester_pb2.JobHeader(collection="default"))] * 2, "second one"),
        ([Request()], "empty"),
    ],
)
async def test_messages_out_of_order_are_refused(
    ingester: Any, requests: list[Any], says: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await ingester.call(ingester.stub.Submit, messages(*requests))

    assert says in caught.value.message


async def test_a_piece_over_one_mebibyte_is_refused(ingester: Any) -> None:
    pieces = messages(
        Request(job=ingester_pb2.JobHeader(collection="default")),
        Request(document=Header(document_id="a")),
        Request(data=b"x" * (1024 * 1024 + 1)),
    )

    with pytest.raises(InvalidInput, match="the limit is 1,048,576"):
        await ingester.call(ingester.stub.Submit, pieces)


async def test_what_does_not_exist_is_not_found(ingester: Any) -> None:
    request = ingester_pb2.GetJobRequest(id="job-none")
    for method in (ingester.stub.GetJob, ingester.stub.CancelJob, ingester.stub.RetryJob):
        with pytest.raises(NotFound, match="job-none"):
            await ingester.call(method, request)
    with pytest.raises(NotFound, match="'none'"):
        await ingester.document("none")
    with pytest.raises(NotFound, match="'none'"):
        await ingester.delete("none")


async def test_a_page_over_the_limit_is_refused(ingester: Any) -> None:
    request = ingester_pb2.ListDocumentsRequest(collection="default", limit=1001)

    with pytest.raises(InvalidInput, match="limit is 1001; the limit is 1000"):
        await ingester.call(ingester.stub.ListDocuments, request)


@pytest.mark.parametrize(
    "head",
    [
        Header(filename="../../victim"),
        Header(filename="..\\victim"),
        Header(filename="/etc/passwd"),
        Header(document_id=".."),
        Header(document_id="a\nb"),
    ],
)
async def test_an_id_that_walks_is_refused(ingester: Any, head: Any) -> None:
    with pytest.raises(InvalidInput, match="document id"):
        await ingester.submit([(head, b"x")])


async def test_a_batch_deletes_what_there_is_and_names_what_there_is_not(
    ingester: Any, retriever: Any
) -> None:
    await ingester.ended(await ingester.submit({"one": "Uno.", "two": "Due.", "three": "Tre."}))
    request = ingester_pb2.BatchDeleteDocumentsRequest(
        collection="default", document_ids=["two", "..", "one", "two"]
    )

    gone = await ingester.call(ingester.stub.BatchDeleteDocuments, request)

    assert (gone.deleted_chunks, list(gone.missing_ids)) == (2, [".."])
    assert {chunk.document_id for chunk in retriever.collections["default"].values()} == {"three"}
    for id_ in ("one", "two"):
        with pytest.raises(NotFound):
            await ingester.document(id_)


async def test_a_batch_has_an_id_and_a_limit(ingester: Any) -> None:
    for ids in ([], [str(number) for number in range(1001)]):
        request = ingester_pb2.BatchDeleteDocumentsRequest(collection="default", document_ids=ids)
        with pytest.raises(InvalidInput, match="1000"):
            await ingester.call(ingester.stub.BatchDeleteDocuments, request)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (nested(20), "deeper than 16 levels"),
        ({f"k{n}": n for n in range(1_001)}, "more than 1,000 values"),
        ({"text": "ж" * 40_000}, "80,011 bytes"),
        ({"n": 10**400}, "beyond 1.8e308"),
    ],
)
async def test_metadata_that_the_index_refuses_is_refused_at_submission(
    ingester: Any, retriever: Any, metadata: dict[str, Any], message: str
) -> None:
    await ingester.ended(await ingester.submit({"a": "Good."}))
    head = ingester_pb2.DocumentHeader(
        document_id="a", media_type="text/plain", metadata_json=json.dumps(metadata)
    )

    with pytest.raises(InvalidInput, match=message):
        await ingester.submit([(head, b"Better.")])

    assert (await ingester.document("a")).text == "Good."
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["Good."]


async def test_a_version_that_the_index_refuses_leaves_the_old_one_whole(
    ingester: Any, retriever: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Old words. " * 300}))
    old = retriever.chunks("default", "a")
    retriever.error = lambda method: (
        InvalidInput("No.") if method == "Upsert" and retriever.upserts > 1 else None
    )
    retriever.upserts = 0

    # So many chunks that the first of several calls is answered.
    job = await ingester.ended(await ingester.submit({"a": "New words. " * 50_000}))

    stored = await ingester.document("a")
    assert job.status == ingester_pb2.JOB_STATUS_FAILED
    assert stored.status == ingester_pb2.DOCUMENT_STATUS_READY
    assert stored.text == "Old words. " * 300
    assert retriever.chunks("default", "a") == old
    assert all(chunk.text == stored.text[chunk.start : chunk.end] for chunk in old)


async def test_a_new_version_is_switched_to_when_all_of_it_is_there(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Old words."}))
    retriever.gate.clear()
    retriever.upserts = 0
    job = await ingester.submit({"a": "New words."})
    await until(lambda: retriever.upserts == 1)

    assert (await ingester.document("a")).text == "Old words."
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["Old words."]
    retriever.gate.set()
    await ingester.ended(job)

    assert (await ingester.document("a")).text == "New words."
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["New words."]
