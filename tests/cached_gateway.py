"""A gateway's caches over stages that behave as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.v1 import common_pb2, embedder_pb2, generator_pb2, reranker_pb2, retriever_pb2
from raglan_gateway.caches.cached_pipeline import CachedPipeline
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.models import ServedModels
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.pipeline import Budgets, Delta, Event, Pipeline
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState

MODEL = common_pb2.ModelIdentity(id="m", revision="1", dimension=2)
QUERY = Query(
    text="how often is the pump maintained",
    collections=("c",),
    top_k=3,
    mode=retriever_pb2.SEARCH_MODE_HYBRID,
    rerank=True,
)
SERVICES = ("embedder", "reranker", "generator")
LAYERS = (Layer.EMBEDDING, Layer.EVIDENCE, Layer.ANSWER)


@dataclass
class Index:
    """A mesh of one collection a name; its passages say at which revision they were found."""

    revision: int = 1
    calls: list[str] = field(default_factory=list)
    embed_error: RaglanError | None = None
    rerank_error: RaglanError | None = None
    revisions_error: RaglanError | None = None
    asked: list[list[str]] = field(default_factory=list)
    going_on: asyncio.Event = field(default_factory=asyncio.Event)
    spent: list[int] = field(default_factory=list)
    closed: int = 0
    vector: tuple[float, float] = (1.0, 0.0)
    """Of every text."""

    def __post_init__(self) -> None:
        self.going_on.set()

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        if kind == embedder_pb2.INPUT_KIND_QUERY:
            self.calls.append("embed")
            if self.embed_error:
                raise self.embed_error
        rows = np.array([self.vector] * len(texts), np.float32)
        return embedder_pb2.EmbedResponse(vectors=tensors.pack(rows), model=MODEL)

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        self.calls.append("search")
        return retriever_pb2.SearchResponse(
            passages=[
                common_pb2.Passage(chunk_id=f"p{i}", text=f"{self.revision} of {request.text} {i}")
                for i in range(5)
            ],
            revisions=dict.fromkeys(request.collections, self.revision),
        )

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        self.calls.append("rerank")
        if self.rerank_error:
            raise self.rerank_error
        return reranker_pb2.RerankResponse(
            ranked=[reranker_pb2.Ranked(index=i, calibrated=0.9 - i / 10) for i in (2, 0, 1)]
        )

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        self.calls.append("generate")
        try:
            yield generator_pb2.GenerateEvent(thinking=generator_pb2.Delta(text="Hm."))
            await self.going_on.wait()
            for text in ("It ", "is ", f"{request.passages[0].text} [1]"):
                yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=text))
            citation = generator_pb2.Citation(marker=1, passage_index=0, quote="is")
            yield generator_pb2.GenerateEvent(citation=citation)
            finished = generator_pb2.Finished(
                reason=generator_pb2.FINISH_REASON_STOP,
                usage=generator_pb2.Usage(completion_tokens=7),
                confidence=0.5,
                claims=[generator_pb2.Claim(start=0, end=5, markers=[1], support=0.1)],
            )
            yield generator_pb2.GenerateEvent(finished=finished)
        finally:
            self.closed += 1

    async def revisions(self, collections: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(list(collections))
        if self.revisions_error:
            raise self.revisions_error
        return dict.fromkeys(collections, self.revision)

    async def describe(self, service: str) -> common_pb2.ServiceInfo:
        return common_pb2.ServiceInfo(service=service, model=MODEL)


@dataclass
class Counted:
    """Counts lookups."""

    hits: list[Layer] = field(default_factory=list)
    misses: list[Layer] = field(default_factory=list)
    joins: int = 0

    def looked_up(self, layer: Layer, saved_s: float | None) -> None:
        (self.misses if saved_s is None else self.hits).append(layer)

    def joined(self) -> None:
        self.joins += 1


@dataclass
class Gateway:
    """The pipeline and what is around it."""

    pipeline: CachedPipeline
    counted: Counted
    store: CacheStore
    models: ServedModels

    async def answer(self, query: Query = QUERY) -> QueryState:
        return (await self.events(query))[-1].run  # type: ignore[union-attr]

    async def events(self, query: Query = QUERY) -> list[Event]:
        return [event async for event in self.pipeline.answer(query, Deadline.after(20))]


@asynccontextmanager
async def running(index: Index, similar: SimilarQuestions) -> AsyncIterator[Gateway]:
    """Run the caches over `index`."""
    budgets = Budgets(embed_s=9, retrieve_s=9, rerank_s=9, first_token_s=9, cite_s=9)
    store = CacheStore(dict.fromkeys(LAYERS, 600.0), 1_000_000)
    revisions = CurrentRevisions(index.revisions)
    models = ServedModels(SERVICES, index.describe)
    await models.refresh()
    counted = Counted()
    pipeline = CachedPipeline(
        Pipeline(index, budgets, rerank_candidates=5),
        store,
        revisions,
        models,
        similar,
        setup="",
        observer=counted,
        spend=index.spent.append,
    )
    yield Gateway(pipeline, counted, store, models)
    await models.close()
    await revisions.close()
    await store.close()


def texts(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))
