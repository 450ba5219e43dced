"""Sentences that situate chunks: what is embedded, what is asked for once, and what is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from raglan.errors import InvalidInput
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import generator_pb2, generator_pb2_grpc, ingester_pb2
from raglan_ingester.model import ChunkContext
from sqlalchemy.orm import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")
shared = pytest_asyncio.fixture(scope="module", loop_scope="module")

TEXT = "\n\n".join(f"Paragraph {n} says that part {n} is worn out. " * 3 for n in range(12))


class Writer(generator_pb2_grpc.GeneratorServiceServicer):
    """A generator that counts what it is asked; `fails` says which call fails."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.asked: list[Any] = []
        self.most_in_flight = self.in_flight = 0
        self.fails: Any = lambda number: False

    async def Situate(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        if self.fails(len(self.asked)):
            raise InvalidInput("The passage is too long.")  # opens no circuit breaker
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        usage = generator_pb2.Usage(prompt_tokens=50, completion_tokens=5)
        return generator_pb2.SituateResponse(sentence=f"Of {request.title}.", usage=usage)


@shared
async def writer(stack: AsyncExitStack) -> AsyncIterator[Writer]:
    yield Writer()


@shared
async def addresses(
    stack: AsyncExitStack, addresses: dict[str, str], writer: Writer
) -> dict[str, str]:
    register = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    service = Service("raglan.v1.GeneratorService", lambda s: register(writer, s))
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    stack.push_async_callback(server.stop)
    return addresses | {"generator_address": f"127.0.0.1:{server.port}"}


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"context_calls_in_flight": 2}


@pytest.fixture(autouse=True)
def contextual(ingester: Any, retriever: Any, writer: Writer) -> None:
    """A collection with contextual chunks; after `ingester`, which empties everything."""
    writer.reset()
    retriever.add_collection("small", max_chars=200)
    retriever.chunking["small"].contextual = True


async def put(ingester: Any, title: str = "Parts", **documents: str) -> Any:
    pairs = [
        (
            ingester_pb2.DocumentHeader(document_id=id_, media_type="text/plain", title=title),
            text.encode(),
        )
        for id_, text in documents.items()
    ]
    job = await ingester.ended(await ingester.submit(pairs, "small"))
    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED, job
    return job


def cost(job: Any) -> tuple[int, int, int]:
    return job.context.calls, job.context.reused, job.context.missing


async def test_the_sentence_is_before_what_is_embedded_and_nowhere_else(
    ingester: Any, retriever: Any, embedder: Any, writer: Writer
) -> None:
    job = await put(ingester, a=TEXT)
    chunks = retriever.chunks("small", "a")
    assert len(chunks) > 5
    assert cost(job) == (len(chunks), 0, 0)
    assert (job.context.prompt_tokens, job.context.completion_tokens) == (
        50 * len(chunks),
        5 * len(chunks),
    )
    assert writer.most_in_flight == 2
    assert all("Of Parts.\n" in text for text in embedder.texts)
    assert all("Of Parts." not in chunk.text for chunk in chunks)
    assert {each.passage for each in writer.asked} == {chunk.text for chunk in chunks}
    (document,) = {each.document for each in writer.asked}
    assert document == (await ingester.document("a", "small")).text


async def test_what_was_written_is_reused_and_what_changed_is_written(
    ingester: Any, retriever: Any, writer: Writer
) -> None:
    await put(ingester, a=TEXT)
    count = len(retriever.chunks("small", "a"))
    retriever.chunking["small"].max_chars = 199  # other settings: all of it is done again
    assert cost(await put(ingester, a=TEXT)) == (0, count, 0)
    await put(ingester, a=f"{TEXT}\n\nA new end.")
    assert len(writer.asked) > count  # the model was shown another document
    assert await ingester.delete("a", "small")

    def kept(session: Session) -> int:
        return session.scalars(sa.select(sa.func.count()).select_from(ChunkContext)).one()

    assert await ingester.in_database(kept) == 0


async def test_a_model_that_fails_costs_no_document(
    ingester: Any, retriever: Any, embedder: Any, writer: Writer
) -> None:
    writer.fails = lambda number: number == 3
    job = await put(ingester, a=TEXT)
    count = len(retriever.chunks("small", "a"))
    assert cost(job) == (count, 0, 1)
    assert "1 chunks are embedded without" in job.warnings[-1].message
    assert "The passage is too long." in job.warnings[-1].message
    assert sum("Of Parts." not in text for text in embedder.texts) == 1
    # The missing one alone is asked for when the document is done again.
    writer.fails = lambda number: False
    retriever.chunking["small"].max_chars = 199
    assert cost(await put(ingester, a=TEXT)) == (1, count - 1, 0)


async def test_a_model_that_always_fails_is_not_asked_for_every_chunk(
    ingester: Any, retriever: Any, writer: Writer
) -> None:
    writer.fails = lambda number: True
    job = await put(ingester, a=TEXT)
    count = len(retriever.chunks("small", "a"))
    assert job.context.missing == count
    assert job.context.calls <= 7 < count


async def test_a_document_of_one_chunk_and_other_collections_ask_for_nothing(
    ingester: Any, retriever: Any, writer: Writer
) -> None:
    job = await put(ingester, a="One chunk is its own document.")
    assert cost(job) == (0, 0, 0)
    assert job.HasField("context")
    plain = await ingester.ended(await ingester.submit({"a": TEXT}))
    assert not plain.HasField("context")
    assert writer.asked == []
