"""Limits and retry, set low."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from raglan.errors import Conflict, PayloadTooLarge, Unavailable
from raglan.v1 import ingester_pb2
from raglan_ingester.app import build
from raglan_ingester.workers import claim_name

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {
        "max_document_bytes": 1000,
        "max_job_bytes": 1500,
        "max_documents_per_job": 300,
        "max_chunks_per_job": 10,
        "outage_patience_s": 0.3,
    }


async def test_a_document_over_the_limit_is_refused_and_leaves_nothing(
    ingester: Any,
) -> None:
    def stored() -> set[Path]:
        blobs = ingester.settings.data_dir / "blobs"
        return {path for path in blobs.rglob("*") if path.is_file()}

    before = stored()
    with pytest.raises(PayloadTooLarge, match=r"1,000 bytes.*RAGLAN_INGESTER_MAX_DOCUMENT_BYTES"):
        await ingester.submit({"big": "x" * 1001})

    assert stored() <= before


async def test_a_job_over_the_limit_is_refused(ingester: Any) -> None:
    with pytest.raises(PayloadTooLarge, match="RAGLAN_INGESTER_MAX_JOB_BYTES"):
        await ingester.submit({"a": "x" * 800, "b": "x" * 800})


async def test_more_documents_than_the_limit_are_refused(ingester: Any) -> None:
    with pytest.raises(PayloadTooLarge, match="RAGLAN_INGESTER_MAX_DOCUMENTS_PER_JOB"):
        await ingester.submit({f"d{n}": "x" for n in range(301)})


async def test_documents_beyond_the_chunks_of_a_job_fail_with_a_sentence(ingester: Any) -> None:
    texts = {f"d{n:02}": f"Text {n}." for n in range(12)}

    job = await ingester.ended(await ingester.submit(texts))

    assert job.status == ingester_pb2.JOB_STATUS_PARTIAL
    assert len(job.errors) == 2
    assert "RAGLAN_INGESTER_MAX_CHUNKS_PER_JOB" in job.errors[0].message


async def test_an_embedder_that_stays_away_fails_the_documents_with_a_sentence(
    ingester: Any, embedder: Any
) -> None:
    embedder.error = lambda texts: Unavailable("The embedder cannot be reached.")

    job = await ingester.ended(await ingester.submit({f"d{n}": f"T{n}." for n in range(10)}))

    assert job.status == ingester_pb2.JOB_STATUS_FAILED
    assert len(job.errors) == 10
    assert job.errors[0].message.startswith("The embedder cannot be reached.")

    # Its breaker is open. Once it has closed, documents are read again.
    embedder.reset()
    while job.status != ingester_pb2.JOB_STATUS_SUCCEEDED:
        await asyncio.sleep(0.1)
        job = await ingester.ended(await ingester.submit({"back": "Again."}))


async def test_a_second_ingester_on_the_same_sqlite_file_does_not_start(
    ingester: Any, tmp_path: Path
) -> None:
    on_sqlite = {"database_url": SecretStr(""), "data_dir": tmp_path}
    second = build(ingester.settings.model_copy(update=on_sqlite))
    first = claim_name(tmp_path, configured="", is_shared=False)

    with pytest.raises(Conflict, match="Another ingester uses"):
        await second.start()
    await second.close()
    first.release()
