"""What is found to be wrong is repaired without being asked."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from raglan.v1 import ingester_pb2

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
