"""The caller's deadline reaches a Qdrant server."""

from __future__ import annotations

import pytest
from qdrant_client import AsyncQdrantClient
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan_retriever.stores.qdrant import QdrantStore


@pytest.mark.loop_stall_s(2.0)  # the server computes in this process
async def test_a_qdrant_server_is_told_how_long_the_caller_waits(
    qdrant_http: tuple[str, list[tuple[str, str]]],
) -> None:
    url, seen = qdrant_http
    store = QdrantStore(AsyncQdrantClient(url, check_compatibility=False))
    Deadline.after(2.5).adopt()
    with pytest.raises(NotFound):
        await store.search("none", [0.0, 1.0], 3, None)
    await store.close()
    assert seen[-1] == ("POST", "/collections/none/points/query?timeout=3")
