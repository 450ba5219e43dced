"""A document's journey: submitted, parsed, cut, embedded, indexed, counted."""

from __future__ import annotations

from typing import Any

from raglan.v1 import ingester_pb2


async def test_a_text_is_stored_cut_embedded_and_indexed(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    text = "First sentence of the note. " * 100

    job = await ingester.ended(await ingester.submit({"note": text}))

    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    stored = await ingester.document("note")
    chunks = retriever.chunks("default", "note")
    assert stored.status == ingester_pb2.DOCUMENT_STATUS_READY
    assert stored.chunks == len(chunks) == 3
    assert all(chunk.text == stored.text[chunk.start : chunk.end] for chunk in chunks)
    assert len(embedder.texts) == 3
    assert {(stage.stage, stage.done, stage.total) for stage in job.stages} == {
        ("parse", 1, 1),
        ("chunk", 1, 1),
        ("embed", 3, 3),
        ("index", 3, 3),
    }
