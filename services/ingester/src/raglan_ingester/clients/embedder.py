"""Texts to vectors, through the embedder's bulk lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import Internal
from raglan.rpc.pool import EndpointPool
from raglan.v1 import common_pb2, embedder_pb2

_CALL_S: Final = 60.0
"""A bulk call may wait behind queries; one that takes longer is tried again."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which model made a vector."""

    id: str
    revision: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: NDArray[Any]
    """float32 of shape (texts, dimension)."""
    model: Model


class EmbedderClient:
    def __init__(self, pool: EndpointPool) -> None:
        self._pool = pool

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One row a text. Raises RaglanError."""
        request = embedder_pb2.EmbedRequest(
            texts=texts, kind=embedder_pb2.INPUT_KIND_PASSAGE, lane=common_pb2.LANE_BULK
        )
        reply = await self._pool.call(
            "Embed", request, deadline=Deadline.after(_CALL_S), retry=False
        )
        vectors = tensors.unpack(reply.vectors).astype(np.float32, copy=False)
        if len(vectors) != len(texts):
            raise Internal(f"The embedder gave {len(vectors)} vectors for {len(texts)} texts.")
        model = Model(reply.model.id, reply.model.revision, reply.model.dimension)
        return Embedded(vectors, model)
