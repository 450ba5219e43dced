"""The services, as the pipeline calls them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from raglan.deadline import Deadline
from raglan.v1 import embedder_pb2, generator_pb2, reranker_pb2, retriever_pb2


class ServiceClients(Protocol):
    """The services, as the pipeline calls them. Each raises `RaglanError`."""

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        """Embed texts; vectors of shape (len(texts), dim), and the outputs `further`."""
        ...

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Search the index."""
        ...

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        """Score passages."""
        ...

    async def neighbours(
        self, request: retriever_pb2.GetNeighboursRequest, *, deadline: Deadline
    ) -> retriever_pb2.GetNeighboursResponse:
        """Read chunks beside passages."""
        ...

    async def rewrite(
        self, request: generator_pb2.RewriteRequest, *, generator: str, deadline: Deadline
    ) -> generator_pb2.RewriteResponse:
        """Have the model of a generator write search texts."""
        ...

    def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        """Stream an answer of the first of `generators` that begins one."""
        ...
