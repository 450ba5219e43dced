"""What each service says on the span of a call, with engines that compute nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import raglan_embedder.app
import raglan_embedder.settings
import raglan_reranker.app
import raglan_reranker.settings
import raglan_retriever.app
import raglan_retriever.settings
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from raglan.deadline import Deadline
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.v1 import (
    embedder_pb2,
    embedder_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "what Mrs Miller asked"


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


@asynccontextmanager
async def serving(build: Any, settings: Any, stub: Callable[[Any], Any]) -> AsyncIterator[Any]:
    server = Server(build(settings), settings)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield stub(channel)
    await server.stop()


async def called(method: Any, request: Any) -> None:
    with request_context.incoming({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        await client.call(method, request, deadline=Deadline.after(10))


async def spans_of(traces: tracing.Tracing, calls: int = 1) -> list[ReadableSpan]:
    """All spans, once those of so many calls have ended on both sides."""
    async with asyncio.timeout(30):
        while True:
            found = traces.recent.of(int(TRACE, 16))[0]
            if sum(span.kind is SpanKind.SERVER for span in found) == calls:
                return list(found)
            await asyncio.sleep(0.01)


def served(spans: list[ReadableSpan]) -> list[dict[str, Any]]:
    return [dict(span.attributes or {}) for span in spans if span.kind is SpanKind.SERVER]


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


async def test_an_embedding_says_model_queue_batch_and_what_the_cache_had(
    traces: tracing.Tracing,
) -> None:
    settings = raglan_embedder.settings.EmbedderSettings(engine="null", port=0, shutdown_drain_s=0)
    stub = embedder_pb2_grpc.EmbedderServiceStub
    async with serving(raglan_embedder.app.build, settings, stub) as embedder:
        request = embedder_pb2.EmbedRequest(texts=[SECRET, "another"])
        await called(embedder.Embed, request)
        await called(embedder.Embed, request)
        spans = await spans_of(traces, calls=2)
    first, second = served(spans)
    assert first[semconv.KIND] == semconv.EMBEDDING
    assert first[semconv.OPERATION] == "embeddings"
    assert first[semconv.EMBEDDING_MODEL] == first[semconv.REQUEST_MODEL] == "null"
    assert (first[semconv.CACHE_LAYER], first[semconv.CACHE_HITS]) == ("vectors", 0)
    assert {semconv.QUEUE_MS, semconv.TOKENIZE_MS, semconv.COMPUTE_MS} <= first.keys()
    assert (second[semconv.CACHE_HITS], second[semconv.CACHE_MISSES]) == (2, 0)
    (batch,) = named(spans, semconv.BATCH)
    assert (batch.attributes or {})[semconv.BATCH_SIZE] == 2
    assert SECRET not in "".join(span.to_json() for span in spans)


async def test_a_reranking_says_model_passages_and_batch(traces: tracing.Tracing) -> None:
    settings = raglan_reranker.settings.RerankerSettings(engine="null", port=0, shutdown_drain_s=0)
    stub = reranker_pb2_grpc.RerankerServiceStub
    async with serving(raglan_reranker.app.build, settings, stub) as reranker:
        candidates = [
            reranker_pb2.Candidate(text=f"{SECRET} {n}", retrieval_score=-n) for n in range(5)
        ]
        request = reranker_pb2.RerankRequest(query=SECRET, candidates=candidates)
        await called(reranker.Rerank, request)
        spans = await spans_of(traces)
    (said,) = served(spans)
    assert said[semconv.KIND] == semconv.RERANKER
    assert said[semconv.PASSAGES] == 5
    assert said[semconv.RERANKER_MODEL]
    assert {semconv.QUEUE_MS, semconv.COMPUTE_MS} <= said.keys()
    assert named(spans, semconv.BATCH)
    assert SECRET not in "".join(span.to_json() for span in spans)


async def test_a_search_says_what_each_leg_found(traces: tracing.Tracing, tmp_path: Any) -> None:
    settings = raglan_retriever.settings.RetrieverSettings(
        store="null",
        port=0,
        shutdown_drain_s=0,
        data_dir=tmp_path,
        # The null store has a passage for whatever is looked up.
        abbreviations=False,
    )
    stub = retriever_pb2_grpc.RetrieverServiceStub
    async with serving(raglan_retriever.app.build, settings, stub) as retriever:
        request = retriever_pb2.SearchRequest(
            collections=["default"], mode=retriever_pb2.SEARCH_MODE_LEXICAL, text=SECRET, limit=7
        )
        await called(retriever.Search, request)
        spans = await spans_of(traces)
    (said,) = served(spans)
    assert said[semconv.KIND] == semconv.RETRIEVER
    (search,), (fetch,) = named(spans, semconv.INDEX_SEARCH), named(spans, semconv.INDEX_FETCH)
    assert search.kind is SpanKind.CLIENT
    assert dict(search.attributes or {}) == {
        semconv.DB_SYSTEM: "null",
        semconv.DB_OPERATION: "search",
        semconv.COLLECTION: "default",
        semconv.MODE: "lexical",
        # Deeper than the seven that were asked for: copies of one text take one place.
        semconv.LIMIT: 200,
        semconv.FILTERED: False,
        semconv.BATCH_SIZE: 1,
        semconv.DB_ROWS: 50,
    }
    assert (fetch.attributes or {})[semconv.DB_ROWS] == 7
    assert SECRET not in "".join(span.to_json() for span in spans)
