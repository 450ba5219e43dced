"""Repairs by the reconciler."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import sqlalchemy as sa
from raglan.errors import NotFound
from raglan.v1 import ingester_pb2
from raglan_ingester.model import Job
from sqlalchemy.orm import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"worker_lease_s": 0.6, "reconcile_every_s": 0.1}


async def test_chunks_that_the_index_lost_come_back(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Alpha. " * 400, "b": "Beta."}))
    chunks = retriever.collections["default"]
    whole = len(retriever.chunks("default", "a"))

    del chunks[retriever.chunks("default", "a")[1].chunk_id]

    await until(lambda: len(retriever.chunks("default", "a")) == whole)
    request = ingester_pb2.ListJobsRequest(collection="default", limit=1)
    (repair,) = (await ingester.call(ingester.stub.ListJobs, request)).jobs
    assert (repair.documents, (await ingester.ended(repair)).status) == (1, SUCCEEDED)


async def test_bytes_that_nothing_names_are_removed(ingester: Any, until: Any) -> None:
    data = b"Nobody knows me."
    name = hashlib.sha256(data).hexdigest()
    orphan = ingester.settings.data_dir / "blobs" / name[:2] / name[2:]
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(data)

    await until(lambda: not orphan.exists())


async def test_nothing_of_a_deleted_document_is_left_on_the_disk(
    ingester: Any, retriever: Any, until: Any
) -> None:
    def files_with(text: bytes) -> list[str]:
        files = (path for path in ingester.settings.data_dir.rglob("*") if path.is_file())
        return [path.name for path in files if text in path.read_bytes()]

    def head(id_: str, media_type: str) -> Any:
        return ingester_pb2.DocumentHeader(
            document_id=id_,
            media_type=media_type,
            filename="quixotic-file",
            title="A quixotic-title",
            metadata_json='{"key": "quixotic-value"}',
        )

    failed = [(head("b", "application/pdf"), b"%PDF-1.7 quixotic-bytes")]
    for pairs in (
        [(head("a", "text/plain"), b"The quixotic-sentence.")],
        [(head("a", "text/plain"), b"A second version.")],
        failed,
    ):
        await ingester.ended(await ingester.submit(pairs))
    assert files_with(b"quixotic")

    await ingester.delete("a")
    await ingester.delete("b")

    await until(lambda: files_with(b"quixotic") == [])


async def test_jobs_are_forgotten_after_their_retention(
    ingester: Any, retriever: Any, until: Any
) -> None:
    job = await ingester.ended(await ingester.submit({"a": "Alpha."}))

    def age(session: Session) -> None:
        session.execute(sa.update(Job).values(finished_ms=Job.finished_ms - 31 * 24 * 3600 * 1000))

    await ingester.in_database(age)

    async def is_forgotten() -> bool:
        try:
            await ingester.job(job.id)
        except NotFound:
            return True
        return False

    await until(is_forgotten)
    assert (await ingester.document("a")).text == "Alpha."


async def test_a_repair_leaves_the_labels_of_a_document_as_they_are(
    ingester: Any, retriever: Any, until: Any
) -> None:
    head = ingester_pb2.DocumentHeader(document_id="a", media_type="text/markdown")
    text = b"---\nauthor: Ann\nkind: memo\n---\n\n# Title\n\nSome words.\n"
    await ingester.ended(await ingester.submit([(head, text)]))
    request = ingester_pb2.UpdateDocumentRequest(
        collection="default", document_id="a", metadata_json='{"author":null,"kind":"note"}'
    )
    row = await ingester.call(ingester.stub.UpdateDocument, request)
    for id_ in [chunk.chunk_id for chunk in retriever.chunks("default", "a")]:
        del retriever.collections["default"][id_]
    await until(lambda: bool(retriever.chunks("default", "a")))
    assert {chunk.metadata_json for chunk in retriever.chunks("default", "a")} == {
        row.metadata_json
    }
    assert (await ingester.document("a")).metadata_json == row.metadata_json == '{"kind":"note"}'
