"""A document's journey: submitted, parsed, cut, embedded, indexed, counted."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from raglan.v1 import common_pb2, embedder_pb2, ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED
FORMATS = {
    "a.txt": "A sentence in plain text. " * 90,
    "b.md": "# Guide\n\n## Pin\n\n" + "Set the device. " * 90 + "\n\n## Unpin\n\nUnset it.\n",
    "c.html": "<title>C</title><h1>C</h1>" + "<p>Ein Absatz über Käse.</p>" * 90,
    "d.json": '[{"title": "One", "text": "x"}, {"title": "Two", "text": "y"}]',
    "e.jsonl": '{"id": 1, "text": "первый"}\n{"id": 2, "text": "второй 🚀"}\n',
    "f.csv": "city,note\n" + "Paris,big\n" * 200,
    "g.py": "def f():\n    return 1\n\n\n" * 90,
}


async def test_a_text_is_stored_cut_embedded_and_indexed(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    text = "First sentence of the note. " * 100

    job = await ingester.ended(await ingester.submit({"note": text}))

    assert job.status == SUCCEEDED
    stored = await ingester.document("note")
    assert stored.status == ingester_pb2.DOCUMENT_STATUS_READY
    assert stored.text == text
    assert stored.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert stored.size_bytes == len(text)
    assert stored.chunks == len(retriever.chunks("default", "note")) == 3
    assert {(stage.stage, stage.done, stage.total) for stage in job.stages} == {
        ("parse", 1, 1),
        ("chunk", 1, 1),
        ("embed", 3, 3),
        ("index", 3, 3),
    }


@pytest.mark.parametrize("name", FORMATS)
async def test_every_chunk_is_the_stored_text_between_its_offsets(
    ingester: Any, retriever: Any, name: str
) -> None:
    job = await ingester.submit_file(name, FORMATS[name].encode())

    assert job.status == SUCCEEDED
    stored = await ingester.document(name)
    chunks = retriever.chunks("default", name)
    assert chunks
    assert all(chunk.text == stored.text[chunk.start : chunk.end] for chunk in chunks)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))


async def test_a_chunk_carries_the_name_and_the_time_of_its_document(
    ingester: Any, retriever: Any
) -> None:
    await ingester.submit_file("notes/today.md", b"Said today.")

    stored = await ingester.document("notes/today.md")
    (chunk,) = retriever.chunks("default", "notes/today.md")
    assert chunk.filename == "notes/today.md"
    assert chunk.created_at == stored.created_at


async def test_the_model_reads_title_and_headings_with_each_chunk(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    page = b"# Guide\n\n## Pin\n\nSet it.\n\n## Unpin\n\nUnset it.\n"
    head = ingester_pb2.DocumentHeader(filename="docs/gpu.md", title="Devices")

    await ingester.ended(await ingester.submit([(head, page)]))

    assert [list(chunk.heading_path) for chunk in retriever.chunks("default", "docs/gpu.md")] == [
        ["Guide", "Pin"],
        ["Guide", "Unpin"],
    ]
    # Markup is blanked for the model.
    assert embedder.texts[1].split("\n") == [
        "Devices",
        "Guide > Unpin",
        "   Unpin",
        "",
        "Unset it.",
    ]


async def test_a_collection_says_how_its_documents_are_cut(ingester: Any, retriever: Any) -> None:
    retriever.add_collection("small", max_chars=50, overlap_chars=0)

    await ingester.ended(await ingester.submit({"a": "Some words. " * 20}, "small"))

    assert len(retriever.chunks("small", "a")) > 4


async def test_many_documents_keep_several_calls_of_the_embedder_under_way(
    ingester: Any, embedder: Any
) -> None:
    # Slower than the parsers on any machine, so that calls pile up.
    embedder.delay_s = 0.15

    job = await ingester.ended(await ingester.submit({f"d{n}": f"Text {n}." for n in range(600)}))

    assert job.status == SUCCEEDED
    assert len(embedder.texts) == 600
    assert embedder.most_in_flight == 4


async def test_the_same_documents_again_are_not_embedded_again(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    documents = {"a": "Alpha.", "b": "Beta."}
    await ingester.ended(await ingester.submit(documents))
    embedder.texts.clear()

    job = await ingester.ended(await ingester.submit(documents | {"c": "Gamma."}))

    assert (job.status, job.documents, job.unchanged) == (SUCCEEDED, 3, 2)
    assert embedder.texts == ["Gamma."]
    assert len(retriever.collections["default"]) == 3


async def test_changed_bytes_under_the_same_id_replace_the_document(
    ingester: Any, retriever: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Old words. " * 400}))
    before = len(retriever.chunks("default", "a"))

    await ingester.ended(await ingester.submit({"a": "New."}))

    assert before > 1
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["New."]
    assert (await ingester.document("a")).text == "New."


async def test_a_new_model_makes_unchanged_documents_new_work(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Alpha."}))
    embedder.texts.clear()
    other = common_pb2.ModelIdentity(id="fake", revision="2", dimension=8)
    embedder.model = retriever.model = other

    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    assert (job.unchanged, embedder.texts) == (0, ["Alpha."])


async def test_vectors_of_another_model_are_refused_with_both_names(
    ingester: Any, embedder: Any
) -> None:
    embedder.model = common_pb2.ModelIdentity(id="other", revision="9", dimension=8)

    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    assert job.status == ingester_pb2.JOB_STATUS_FAILED
    assert "fake" in job.errors[0].message
    assert "other" in job.errors[0].message


async def test_a_job_does_not_succeed_when_the_index_holds_fewer_chunks(
    ingester: Any, retriever: Any
) -> None:
    retriever.lose = lambda chunk: (chunk.document_id, chunk.ordinal) == ("a", 1)

    job = await ingester.ended(await ingester.submit({"a": "Words here. " * 200, "b": "Beta."}))

    assert job.status == ingester_pb2.JOB_STATUS_PARTIAL
    assert [(error.document_id, error.message) for error in job.errors] == [
        ("a", "The index holds 1 of the document's 2 chunks; retry the job.")
    ]


async def test_the_service_tells_its_engine_and_limits(ingester: Any) -> None:
    info = await ingester.call(ingester.stub.GetInfo, common_pb2.GetInfoRequest())

    assert (info.service, info.engine) == ("ingester", "dbos")
    assert info.limits["max_document_bytes"] == 64 * 1024 * 1024
    assert "audit_hook" in info.confinement


async def test_texts_go_through_the_bulk_lane_as_passages(ingester: Any, embedder: Any) -> None:
    await ingester.ended(await ingester.submit({"a": "Alpha."}))

    assert embedder.lanes == {common_pb2.LANE_BULK}
    assert embedder.kinds == {embedder_pb2.INPUT_KIND_PASSAGE}
