"""Documents that a bulk ingestion cut and embedded before their submission."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from raglan.errors import InvalidInput
from raglan.v1 import common_pb2, ingester_pb2
from raglan_ingester.bulk.plan import Services, plan_of
from raglan_ingester.bulk.worker import BulkDocuments
from raglan_ingester.fingerprints import fingerprint
from raglan_ingester.prepared import PreparedStore
from raglan_ingester.sources.reader import Entry, Skipped

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOTE = "# Pumps\n\nThe pump leaks.\n\n# Valves\n\nThe valve is tight.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "manuals"
    folder.mkdir()
    (folder / "a.md").write_text(NOTE)
    (folder / "b.txt").write_text("The tank is full.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (folder / "empty.txt").write_text("\n")
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    return folder


@pytest_asyncio.fixture(loop_scope="module")
async def documents(
    ingester: Any, addresses: dict[str, str], folder: Path
) -> AsyncIterator[BulkDocuments]:
    services = Services(
        ingester.address, addresses["embedder_address"], addresses["retriever_address"]
    )
    plan = plan_of(str(folder), services, collection="default")
    documents = BulkDocuments(plan, ingester.settings)
    yield documents
    await documents.close()


async def submit(ingester: Any, name: str, data: bytes, fingerprint: str, form: bytes) -> Any:
    head = ingester_pb2.DocumentHeader(document_id=name, filename=name, fingerprint=fingerprint)

    async def requests() -> AsyncIterator[ingester_pb2.SubmitRequest]:
        job = ingester_pb2.JobHeader(collection="default")
        yield ingester_pb2.SubmitRequest(job=job)
        yield ingester_pb2.SubmitRequest(document=head)
        yield ingester_pb2.SubmitRequest(data=data)
        yield ingester_pb2.SubmitRequest(prepared=form)

    job = await ingester.call(ingester.stub.Submit, requests())
    return await ingester.ended(job)


def chunks_of(retriever: Any) -> dict[str, str]:
    return {id_: str(chunk) for id_, chunk in retriever.collections["default"].items()}


async def test_what_a_worker_prepared_is_what_a_job_makes(
    ingester: Any, retriever: Any, embedder: Any, documents: BulkDocuments, folder: Path
) -> None:
    kept = waiting(ingester)
    plain = []
    for name, media_type in (("a.md", "text/markdown"), ("b.txt", "text/plain")):
        id_ = f"manuals/{name}"
        head = ingester_pb2.DocumentHeader(document_id=id_, filename=id_, media_type=media_type)
        plain.append((head, (folder / name).read_bytes()))
    await ingester.ended(await ingester.submit(plain))
    expected, texts = retriever.collections["default"].keys(), sorted(embedder.texts)
    stored = await ingester.document("manuals/a.md")
    for head, _ in plain:
        await ingester.delete(head.document_id)
    embedder.texts.clear()

    entries = (await documents.listing(Skipped())).entries
    records = {each.document: each for each in await documents.work(entries)}
    assert {name: each.state for name, each in records.items()} == {
        "manuals/a.md": "indexed",
        "manuals/b.txt": "indexed",
        "manuals/broken.pdf": "failed",
        "manuals/empty.txt": "gone",
    }
    assert "PDF" in records["manuals/broken.pdf"].error
    assert sorted(embedder.texts) == texts  # by the worker, and not once more by the job
    assert retriever.collections["default"].keys() == expected
    assert records["manuals/a.md"].chunks == len(retriever.chunks("default", "manuals/a.md"))
    again = await ingester.document("manuals/a.md")
    assert (again.text, again.sha256, again.warnings) == (
        stored.text,
        stored.sha256,
        stored.warnings,
    )
    assert waiting(ingester) == kept


async def test_the_same_documents_again_write_nothing(
    ingester: Any, retriever: Any, documents: BulkDocuments
) -> None:
    kept = waiting(ingester)
    entries = (await documents.listing(Skipped())).entries
    await documents.work(entries)
    upserts, before = retriever.upserts, chunks_of(retriever)
    records = await documents.work(entries)
    assert {each.state for each in records} == {"indexed", "failed", "gone"}
    assert (retriever.upserts, chunks_of(retriever)) == (upserts, before)
    assert waiting(ingester) == kept


def waiting(ingester: Any) -> set[str]:
    """Names of the prepared documents that no job took."""
    return {path.name for path in (ingester.settings.data_dir / "prepared").glob("*")}


@pytest.mark.parametrize("model", [common_pb2.ModelIdentity(), None])
async def test_what_cannot_be_used_is_made_by_the_job(
    ingester: Any,
    retriever: Any,
    embedder: Any,
    documents: BulkDocuments,
    model: common_pb2.ModelIdentity | None,
) -> None:
    """Nothing of another model, or that is no prepared document, reaches the index."""
    settings = await documents.collection()
    item = documents._plan.item("a.md", NOTE.encode())
    item.document_id = item.filename = "a.md"
    item.media_type = ""
    digest = fingerprint(item, settings)
    form = b"\xff\xff" if model is None else foreign(model)
    job = await submit(ingester, "a.md", NOTE.encode(), digest, form)
    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    assert len(embedder.texts) == len(retriever.chunks("default", "a.md")) == 2
    assert "another text" not in (await ingester.document("a.md")).text


def foreign(model: common_pb2.ModelIdentity) -> bytes:
    cut = {
        "title": "",
        "text": "another text",
        "language": "",
        "metadata": {},
        "warnings": [],
        "structure": "",
        "chunks": [[0, 12, [], 0, "", {}, None]],
    }
    vectors = common_pb2.Tensor(data=bytes(32), rows=1, dim=8, dtype=common_pb2.DTYPE_FLOAT32)
    return ingester_pb2.PreparedDocument(
        cut_json=json.dumps(cut).encode(), vectors=vectors, model=model
    ).SerializeToString()


async def test_a_form_of_other_settings_is_never_found(
    ingester: Any, embedder: Any, retriever: Any
) -> None:
    job = await submit(ingester, "a.md", NOTE.encode(), "0" * 64, b"anything")
    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    assert len(embedder.texts) == 2


async def test_what_no_job_took_is_removed(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path / "prepared")
    for name in ("0" * 64, "1" * 64):
        writer = store.writer(name)
        await writer.write(b"form")
        await writer.commit()
    os.utime(tmp_path / "prepared" / ("0" * 64), (1e9, 1e9))
    await store.sweep()
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["1" * 64]


@pytest.mark.parametrize("fingerprint", ["../../elsewhere", "A" * 64, "0" * 63])
async def test_a_fingerprint_is_a_digest(ingester: Any, fingerprint: str) -> None:
    with pytest.raises(InvalidInput, match="no fingerprint"):
        await submit(ingester, "a.md", NOTE.encode(), fingerprint, b"")


async def test_prepared_bytes_need_a_fingerprint(ingester: Any) -> None:
    with pytest.raises(InvalidInput, match="without a fingerprint"):
        await submit(ingester, "a.md", NOTE.encode(), "", b"anything")


async def test_a_name_that_is_no_id_fails_alone(documents: BulkDocuments) -> None:
    records = await documents.work([Entry("x" * 2_000, "1"), Entry("b.txt", "1")])
    assert [each.state for each in records] == ["failed", "indexed"]


async def test_a_mesh_that_is_away_fails_the_documents_and_not_the_run(
    ingester: Any, documents: BulkDocuments, retriever: Any
) -> None:
    retriever.error = lambda method: InvalidInput("Not now.")
    records = await documents.work([Entry("a.md", "1")])
    assert [(each.state, each.error, each.version) for each in records] == [
        ("failed", "Not now.", "1")
    ]
