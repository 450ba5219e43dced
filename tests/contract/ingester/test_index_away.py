"""The index is away for longer than the ingester waits."""

from __future__ import annotations

from typing import Any

import pytest
from raglan.errors import Unavailable
from raglan.v1 import ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"outage_patience_s": 0.3}


async def test_an_index_that_stays_away_leaves_the_old_version_whole(
    ingester: Any, retriever: Any, until: Any
) -> None:
    old = await ingester.ended(await ingester.submit({"a": "Old words."}))
    assert list(old.errors) == []
    retriever.error = lambda method: Unavailable("Away.") if method != "GetCollection" else None

    job = await ingester.ended(await ingester.submit({"a": "New words, more of them."}))

    retriever.error = lambda method: None
    assert job.status == ingester_pb2.JOB_STATUS_FAILED
    stored = await ingester.document("a")
    assert (stored.status, stored.text) == (ingester_pb2.DOCUMENT_STATUS_READY, "Old words.")
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["Old words."]

    async def is_back() -> bool:
        try:
            await ingester.delete("a")
        except Unavailable:
            return False
        return True

    await until(is_back)
