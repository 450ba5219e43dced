"""Chunks of a document, shown without storing it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import log_corpus
import numpy as np
import pytest
from raglan.errors import InvalidInput, NotFound, PayloadTooLarge
from raglan.v1 import ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SENTENCES = "Every release is signed. " * 20


async def preview(ingester: Any, text: str | bytes, **header: Any) -> Any:
    data = text.encode() if isinstance(text, str) else text

    async def messages() -> AsyncIterator[Any]:
        start = ingester_pb2.PreviewHeader(**{"filename": "a.txt", "limit": 100} | header)
        yield ingester_pb2.PreviewChunksRequest(header=start)
        for at in range(0, len(data), 1 << 20):
            yield ingester_pb2.PreviewChunksRequest(data=data[at : at + (1 << 20)])

    return await ingester.call(ingester.stub.PreviewChunks, messages())


async def test_a_preview_shows_what_a_job_makes(ingester: Any, retriever: Any) -> None:
    retriever.add_collection("small", max_chars=120, strategy="sentences")

    shown = await preview(ingester, SENTENCES, collection="small")
    await ingester.ended(await ingester.submit({"a": SENTENCES}, "small"))

    made = [(chunk.start, chunk.end, chunk.text) for chunk in retriever.chunks("small", "a")]
    assert (shown.strategy, shown.max_chars) == ("sentences", 120)
    assert [(chunk.start, chunk.end, chunk.text) for chunk in shown.chunks] == made
    assert shown.chunk_count == len(made) > 4


async def test_a_preview_leaves_nothing(ingester: Any, retriever: Any) -> None:
    await preview(ingester, SENTENCES)
    assert not retriever.collections["default"]
    blobs = ingester.settings.data_dir / "blobs"
    assert [each.name for each in blobs.rglob("*") if each.is_file()] == []


async def test_the_limit_bounds_the_chunks_shown(ingester: Any) -> None:
    shown = await preview(ingester, SENTENCES, max_chars=100, limit=2)
    assert (len(shown.chunks), shown.chunk_count > 2) == (2, True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strategy": "guess"}, "chunking.strategy is 'guess'; known are structure, sentences"),
        ({"filename": "a.exe"}, "Nothing reads this kind of file"),
        ({"max_chars": 20_001}, "max_chars is 20001; the limit is 20000"),
    ],
)
async def test_what_cannot_be_cut_is_refused(
    ingester: Any, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        await preview(ingester, "text", **fields)


async def test_an_unknown_collection_is_refused(ingester: Any) -> None:
    with pytest.raises(NotFound):
        await preview(ingester, "text", collection="none")


async def test_a_document_above_the_limit_is_refused(ingester: Any) -> None:
    limit = ingester.settings.max_document_bytes
    with pytest.raises(PayloadTooLarge, match="RAGLAN_INGESTER_MAX_DOCUMENT_BYTES"):
        await preview(ingester, b"x" * (limit + 1))


async def test_another_strategy_is_another_version_of_the_document(
    ingester: Any, retriever: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": SENTENCES}))
    retriever.chunking["default"].strategy = "sentences"
    job = await ingester.ended(await ingester.submit({"a": SENTENCES}))
    assert job.unchanged == 0


async def test_log_entries_carry_metadata_to_filter_by(ingester: Any, retriever: Any) -> None:
    retriever.add_collection("small", max_chars=600, strategy="log")
    made = log_corpus.make("log4j")

    job = await ingester.submit_file("server.log", made.text.encode(), "small")

    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    chunks = retriever.chunks("small", "server.log")
    found = [json.loads(chunk.own_metadata_json)["log"] for chunk in chunks]
    assert sum(facts["entries"] for facts in found) == len(made.entries)
    assert found[0]["from"] == made.entries[0].time.isoformat(timespec="milliseconds").replace(
        "+00:00", "Z"
    )
    errors = [
        chunk.text for chunk, facts in zip(chunks, found, strict=True) if facts["level"] == "error"
    ]
    assert any("Caused by: java.net.SocketTimeoutException" in text for text in errors)


def subject(text: str) -> Any:
    """One axis for cats, one for trains."""
    row = np.zeros(8, np.float32)
    row[0], row[1] = text.count("cat"), text.count("train")
    return row / max(1.0, float(np.linalg.norm(row)))


CATS = "The cat sleeps on its warm mat until noon. " * 8
TRAINS = "A train leaves the old station every hour. " * 8


async def test_semantic_chunks_end_where_the_subject_changes(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    embedder.vector = subject
    retriever.add_collection("small", max_chars=1_000, strategy="semantic")
    text = CATS + TRAINS

    shown = await preview(ingester, text, collection="small")
    await ingester.ended(await ingester.submit({"a": text}, "small"))

    assert [chunk.text for chunk in shown.chunks] == [CATS.strip(), TRAINS.strip()]
    assert [chunk.text for chunk in retriever.chunks("small", "a")] == [
        CATS.strip(),
        TRAINS.strip(),
    ]


async def test_semantic_chunks_need_the_embedder(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    embedder.error = lambda texts: InvalidInput("No.")
    retriever.add_collection("small", strategy="semantic")

    job = await ingester.ended(await ingester.submit({"a": CATS}, "small"))

    assert [error.message for error in job.errors] == ["No."]


async def test_a_text_of_one_sentence_is_not_embedded_twice(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    retriever.add_collection("small", strategy="semantic")
    await ingester.ended(await ingester.submit({"a": "One sentence."}, "small"))
    assert len(embedder.texts) == 1
