"""No stale and no foreign answer from three gateways with one Redis, in any order of requests."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from raglan import tensors
from raglan.deadline import Deadline
from raglan.v1 import common_pb2, embedder_pb2, generator_pb2, reranker_pb2, retriever_pb2
from raglan_gateway import caller
from raglan_gateway.caches.cached_pipeline import CachedPipeline
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.models import ServedModels
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.pipeline import Answered, Budgets, Pipeline
from raglan_gateway.query import Query
from raglan_gateway.shared.redis_link import RedisLink

if TYPE_CHECKING:
    from conftest import RedisServer

MODEL = common_pb2.ModelIdentity(id="m", dimension=1)
TENANTS = ("a", "b")
ASKED = 3_000
_WORDINGS = ("What is part {}?", "What's part {} please")


@dataclass
class Index:
    """One collection a tenant, whose only passage says whose it is, and of which revision."""

    revisions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 1))
    searches: int = 0

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        rows = np.ones((len(texts), 1), np.float32)
        return embedder_pb2.EmbedResponse(vectors=tensors.pack(rows), model=MODEL)

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        self.searches += 1
        tenant = caller.current().tenant
        told = self.revisions[tenant]
        await asyncio.sleep(0)
        text = f"{tenant} {self.revisions[tenant]} {''.join(filter(str.isdigit, request.text))}"
        return retriever_pb2.SearchResponse(
            passages=[common_pb2.Passage(chunk_id="p", text=text)],
            revisions=dict.fromkeys(request.collections, told),
        )

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        return reranker_pb2.RerankResponse(ranked=[reranker_pb2.Ranked(index=0, calibrated=1)])

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        text = request.passages[0].text
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=text))
        await asyncio.sleep(0)
        finished = generator_pb2.Finished(reason=generator_pb2.FINISH_REASON_STOP)
        yield generator_pb2.GenerateEvent(finished=finished)

    async def fetch(self, collections: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(collections, self.revisions[caller.current().tenant])

    async def describe(self, service: str) -> common_pb2.ServiceInfo:
        return common_pb2.ServiceInfo(service=service, model=MODEL)


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
async def gateways(redis_server: RedisServer, index: Index) -> AsyncIterator[list[CachedPipeline]]:
    budgets = Budgets(embed_s=9, retrieve_s=9, rerank_s=9, first_token_s=9, cite_s=9)
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            link = RedisLink(redis_server.url, call_s=2)
            stack.push_async_callback(link.close)
            # Small, so that many hits come from Redis.
            store = CacheStore(dict.fromkeys(Layer, 600.0), 8_000, link)
            stack.push_async_callback(store.close)
            revisions = CurrentRevisions(index.fetch)
            stack.push_async_callback(revisions.close)
            models = ServedModels(("embedder", "reranker", "generator"), index.describe)
            stack.push_async_callback(models.close)
            await models.refresh()
            pipeline = Pipeline(index, budgets, rerank_candidates=5)
            similar = SimilarQuestions(0.9, 1_000_000, 600)
            made.append(CachedPipeline(pipeline, store, revisions, models, similar, setup=""))
        yield made


async def test_no_stale_and_no_foreign_answer(gateways: list[CachedPipeline], index: Index) -> None:
    """Each answer is its tenant's, and as new as the collection was when it was asked for."""
    chance = random.Random(7)
    wrong: list[str] = []
    hits = reworded = 0

    async def ask(number: int) -> None:
        nonlocal hits, reworded
        tenant = TENANTS[number % 2]
        caller.use(caller.Caller(id=tenant, tenant=tenant))
        newest = index.revisions[tenant]
        asked = str(number // 2 % 12)
        query = Query(
            text=_WORDINGS[number // 3 % 2].format(asked),
            collections=("c",),
            top_k=1,
            mode=retriever_pb2.SEARCH_MODE_HYBRID,
            rerank=True,
            tenant=tenant,
            stream=number % 3 == 0,
        )
        query = dataclasses.replace(query, max_tokens=number // 2 % 3)
        gateway = gateways[number % len(gateways)]
        if number % 5 == 0:
            run = await gateway.search(query, Deadline.after(60))
            answer = run.passages[0].text
        else:
            async for event in gateway.answer(query, Deadline.after(60)):
                if isinstance(event, Answered):
                    run, answer = event.run, event.run.answer
        hits += bool(set(run.cached) & {Layer.ANSWER, Layer.EVIDENCE})
        reworded += Layer.SEMANTIC in run.cached
        owner, revision, answered = answer.split()
        if owner != tenant or int(revision) < newest or answered != asked:
            wrong.append(f"{tenant} asked {asked} at {newest} and got {answer}")

    asking: set[asyncio.Task[None]] = set()
    for _ in range(ASKED):
        asking.add(asyncio.create_task(ask(chance.randrange(1_000_000))))
        if chance.random() < 0.01:
            index.revisions[chance.choice(TENANTS)] += 1
        if len(asking) > 8:
            _, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*asking)
    assert wrong == []
    assert hits > ASKED / 4
    assert reworded > ASKED / 300
