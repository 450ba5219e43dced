from __future__ import annotations

import pytest
from qdrant_client import AsyncQdrantClient
from raglan.errors import Unavailable
from raglan_retriever.stores.qdrant import QdrantStore


async def test_a_qdrant_that_is_not_up_yet_is_worth_another_try() -> None:
    store = QdrantStore(AsyncQdrantClient("http://127.0.0.1:1", check_compatibility=False))
    with pytest.raises(Unavailable, match="RAGLAN_RETRIEVER_QDRANT_URL") as caught:
        await store.open()
    assert caught.value.retry_after_s
    await store.close()
