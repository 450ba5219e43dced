"""Texts to vectors, through the embedder's bulk lane."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import Internal, PayloadTooLarge, Unavailable
from raglan.rpc.pool import EndpointPool
from raglan.v1 import common_pb2, embedder_pb2

_CALL_S: Final = 60.0
"""A bulk call may wait behind queries; one that takes longer is tried again."""

_INFO_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of the model of a vector."""

    id: str
    revision: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of some texts, and how well the model read each."""

    vectors: NDArray[Any]
    """float32 of shape (texts, dimension)."""
    model: Model
    truncated_tokens: Sequence[int] = ()
    """Tokens of each text beyond what the model reads; empty where the embedder does not know."""
    readability: Sequence[float] = ()
    """Of each text, in [0, 1]; empty where the embedder does not know."""
    tokens: Sequence[NDArray[Any]] = ()
    """Token vectors of each text, float16 of shape (tokens, dimension); empty unless asked for."""
    sparse: Sequence[tensors.SparseVector] = ()
    """Term weights of each text by the model; empty unless asked for."""

    def joined(self, other: Embedded) -> Embedded:
        """Return the vectors of these texts and of those of `other`.

        Raises:
            Unavailable: the embedder changed its model in between.
        """
        if self.model != other.model:
            raise Unavailable("The embedder changed its model between two calls.")
        return Embedded(
            np.concatenate([self.vectors, other.vectors]),
            self.model,
            (*self.truncated_tokens, *other.truncated_tokens),
            (*self.readability, *other.readability),
            (*self.tokens, *other.tokens),
            (*self.sparse, *other.sparse),
        )


@dataclass(frozen=True, slots=True)
class FurtherVectors:
    """Vectors that a collection has of each chunk besides the dense one."""

    token_vectors: bool = False
    token_pooling: int = 1
    """Tokens that a token vector stands for in the mean."""
    sparse: bool = False


NO_FURTHER_VECTORS: Final = FurtherVectors()


@dataclass(frozen=True, slots=True)
class TokenizerDefinition:
    """The tokenizer of the embedding model."""

    model: Model
    definition: bytes
    """A Hugging Face tokenizer.json; empty where the embedder has none of its own."""
    max_tokens: int
    """Tokens of one text that the model reads."""


class EmbedderClient:
    """Client of the embedder's bulk lane."""

    def __init__(self, pool: EndpointPool) -> None:
        self._pool = pool

    async def embed(
        self, texts: Sequence[str], further: FurtherVectors = NO_FURTHER_VECTORS
    ) -> Embedded:
        """One row a text, and the `further` vectors of each. Raises RaglanError."""
        request = embedder_pb2.EmbedRequest(
            texts=texts,
            kind=embedder_pb2.INPUT_KIND_PASSAGE,
            lane=common_pb2.LANE_BULK,
            token_vectors=further.token_vectors,
            token_pooling=further.token_pooling,
            sparse=further.sparse,
        )
        try:
            reply = await self._pool.call(
                "Embed", request, deadline=Deadline.after(_CALL_S, is_budget=True), retry=False
            )
        except PayloadTooLarge:
            if len(texts) == 1 or not further.token_vectors:
                raise
            # Token vectors of so many texts do not fit into one message.
            half = len(texts) // 2
            first = await self.embed(texts[:half], further)
            return first.joined(await self.embed(texts[half:], further))
        vectors = tensors.unpack(reply.vectors).astype(np.float32, copy=False)
        if len(vectors) != len(texts):
            raise Internal(f"The embedder gave {len(vectors)} vectors for {len(texts)} texts.")
        return Embedded(
            vectors,
            _model(reply.model),
            tuple(reply.truncated_tokens),
            tuple(reply.readability),
            tensors.unpack_tokens(reply.token_vectors) if further.token_vectors else (),
            tensors.unpack_sparse(reply.sparse) if further.sparse else (),
        )

    async def model(self) -> Model:
        """The model that runs now. Raises RaglanError."""
        reply = await self._pool.call(
            "GetInfo",
            common_pb2.GetInfoRequest(),
            deadline=Deadline.after(_INFO_S, is_budget=True),
        )
        return _model(reply.model)

    async def tokenizer(self) -> TokenizerDefinition:
        """The tokenizer of the model that runs now. Raises RaglanError."""
        reply = await self._pool.call(
            "GetTokenizer",
            embedder_pb2.GetTokenizerRequest(),
            deadline=Deadline.after(_CALL_S, is_budget=True),
            retry=False,
        )
        definition = b""
        if reply.definition_gz:
            definition = await asyncio.to_thread(gzip.decompress, reply.definition_gz)
        return TokenizerDefinition(_model(reply.model), definition, reply.max_tokens)


def _model(identity: common_pb2.ModelIdentity) -> Model:
    return Model(identity.id, identity.revision, identity.dimension)
