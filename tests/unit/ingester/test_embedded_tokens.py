"""Token vectors on their way from the embedder to an index: halved calls, prepared documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from raglan import tensors
from raglan.errors import PayloadTooLarge
from raglan.v1 import common_pb2, embedder_pb2
from raglan_ingester.clients.embedder import Embedded, EmbedderClient, FurtherVectors
from raglan_ingester.embedding_texts import divided

FURTHER = FurtherVectors(token_vectors=True, token_pooling=2, sparse=True)


class SmallReplies:
    """An embedder whose replies hold the token vectors of at most three texts."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def call(
        self, method: str, request: embedder_pb2.EmbedRequest, **options: Any
    ) -> embedder_pb2.EmbedResponse:
        self.calls.append(len(request.texts))
        if len(request.texts) > 3 or "too long" in request.texts:
            raise PayloadTooLarge("The token vectors make a reply of too many bytes.")
        assert (request.token_pooling, request.sparse) == (2, True)
        lengths = [len(text) for text in request.texts]
        tokens = [np.full((length, 2), length, np.float16) for length in lengths]
        sparse = [
            tensors.SparseVector(np.array([length], np.uint32), np.ones(1, np.float32))
            for length in lengths
        ]
        return embedder_pb2.EmbedResponse(
            vectors=tensors.pack(np.array([[length, 0] for length in lengths], np.float32)),
            model=common_pb2.ModelIdentity(id="m", dimension=2),
            truncated_tokens=lengths,
            readability=[1.0] * len(lengths),
            token_vectors=tensors.pack_tokens(tokens),
            sparse=tensors.pack_sparse(sparse),
        )


def client_of(pool: SmallReplies) -> EmbedderClient:
    return EmbedderClient(pool)  # type: ignore[arg-type]  # the part of a pool that is used


async def test_a_call_with_too_many_token_vectors_is_halved() -> None:
    pool = SmallReplies()
    texts = ["x" * length for length in range(1, 9)]
    found = await client_of(pool).embed(texts, FURTHER)
    assert pool.calls == [8, 4, 2, 2, 4, 2, 2]
    assert found.vectors[:, 0].tolist() == list(range(1, 9))
    assert list(found.truncated_tokens) == list(range(1, 9))
    assert [rows.shape for rows in found.tokens] == [(length, 2) for length in range(1, 9)]
    assert [each.indices.tolist() for each in found.sparse] == [[n] for n in range(1, 9)]


async def test_one_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        await client_of(SmallReplies()).embed(["too long"], FURTHER)


async def test_each_document_gets_its_own_tokens() -> None:
    replies: list[Embedded] = [
        await client_of(SmallReplies()).embed(texts, FURTHER) for texts in (["a", "bb"], ["ccc"])
    ]
    first, second = divided(replies, [1, 2])
    assert [len(rows) for rows in first.tokens] == [1]
    assert [len(rows) for rows in second.tokens] == [2, 3]
    assert [each.indices.tolist() for each in second.sparse] == [[2], [3]]
