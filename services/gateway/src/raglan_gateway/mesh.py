"""The other services over gRPC: one channel each, a deadline on every call, our errors back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError
from raglan.rpc import client
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    embedder_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    ingester_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)

from raglan_gateway.settings import GatewaySettings

SERVICES: Final = ("embedder", "retriever", "reranker", "generator", "ingester")
_STUBS: Final = {
    "embedder": embedder_pb2_grpc.EmbedderServiceStub,
    "retriever": retriever_pb2_grpc.RetrieverServiceStub,
    "reranker": reranker_pb2_grpc.RerankerServiceStub,
    "generator": generator_pb2_grpc.GeneratorServiceStub,
    "ingester": ingester_pb2_grpc.IngesterServiceStub,
}
_PROBE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One endpoint, as a probe found it."""

    service: str
    address: str
    state: str
    """"serving", "not_serving" or "unreachable"."""
    info: common_pb2.ServiceInfo | None


class Mesh:
    """Implements `pipeline.Stages` and hands out the stubs of retriever and ingester."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._addresses = {name: getattr(settings, f"{name}_address") for name in SERVICES}
        self._channels = {
            name: client.connect(address) for name, address in self._addresses.items()
        }
        self._endpoints = [
            (name, address.strip(), client.connect(address.strip()))
            for name, addresses in self._addresses.items()
            for address in addresses.split(",")
        ]
        self.embedder = embedder_pb2_grpc.EmbedderServiceStub(self._channels["embedder"])
        self.retriever = retriever_pb2_grpc.RetrieverServiceStub(self._channels["retriever"])
        self.reranker = reranker_pb2_grpc.RerankerServiceStub(self._channels["reranker"])
        self.generator = generator_pb2_grpc.GeneratorServiceStub(self._channels["generator"])
        self.ingester = ingester_pb2_grpc.IngesterServiceStub(self._channels["ingester"])

    async def close(self) -> None:
        """Close every channel."""
        for channel in (*self._channels.values(), *(channel for *_, channel in self._endpoints)):
            await channel.close()

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
    ) -> embedder_pb2.EmbedResponse:
        """Vectors that somebody waits for, shape (len(texts), dim)."""
        request = embedder_pb2.EmbedRequest(
            texts=texts, kind=kind, lane=common_pb2.LANE_INTERACTIVE
        )
        reply: embedder_pb2.EmbedResponse = await client.call(
            self.embedder.Embed, request, deadline=deadline, to="the embedder"
        )
        return reply

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Passages from the index."""
        reply: retriever_pb2.SearchResponse = await client.call(
            self.retriever.Search, request, deadline=deadline, to="the retriever"
        )
        return reply

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        """Scores of passages."""
        reply: reranker_pb2.RerankResponse = await client.call(
            self.reranker.Rerank, request, deadline=deadline, to="the reranker"
        )
        return reply

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        """The generator's stream.

        Raises:
            DeadlineExceeded: nothing came before `first_by`, or the end not before `deadline`.
        """
        replies = client.stream(
            self.generator.Generate, request, deadline=deadline, to="the generator"
        )
        async with aclosing(replies):
            try:
                async with asyncio.timeout(first_by.remaining_s()):
                    first = await anext(replies)
            except TimeoutError:
                raise DeadlineExceeded("The generator did not begin in time.") from None
            except StopAsyncIteration:
                return
            yield first
            async for reply in replies:
                yield reply

    async def probe(self) -> list[Seen]:
        """Ask every endpoint how it is and what it runs; takes at most a second or two."""
        return await asyncio.gather(
            *(_probe(name, address, channel) for name, address, channel in self._endpoints)
        )


async def _probe(name: str, address: str, channel: grpc.aio.Channel) -> Seen:
    deadline = Deadline.after(_PROBE_S)
    health_stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        health: health_pb2.HealthCheckResponse = await client.call(
            health_stub.Check,
            health_pb2.HealthCheckRequest(),
            deadline=deadline,
        )
        stub: Any = _STUBS[name](channel)
        info: common_pb2.ServiceInfo = await client.call(
            stub.GetInfo, common_pb2.GetInfoRequest(), deadline=deadline
        )
    except RaglanError:
        return Seen(name, address, "unreachable", None)
    serving = health.status == health_pb2.HealthCheckResponse.SERVING
    return Seen(name, address, "serving" if serving else "not_serving", info)
