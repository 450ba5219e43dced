"""The other services, as the pipeline and the routes call them: a pool of replicas each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog
from raglan import access_tags
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Overloaded, RaglanError, Unavailable
from raglan.resilience.breaker import State
from raglan.rpc import client
from raglan.rpc.endpoint import Endpoint, Reach
from raglan.rpc.pool import EndpointPool
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    embedder_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    ingester_pb2,
    ingester_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    traces_pb2_grpc,
)

from raglan_gateway.collection_profiles import CollectionSettings
from raglan_gateway.guarded_pool import GuardedPool
from raglan_gateway.query import DEFAULT_GENERATOR
from raglan_gateway.settings import GatewaySettings, addresses_by_name

log: Final = structlog.get_logger()

STUBS: Final = {
    "embedder": embedder_pb2_grpc.EmbedderServiceStub,
    "retriever": retriever_pb2_grpc.RetrieverServiceStub,
    "reranker": reranker_pb2_grpc.RerankerServiceStub,
    "generator": generator_pb2_grpc.GeneratorServiceStub,
    "ingester": ingester_pb2_grpc.IngesterServiceStub,
    "tracer": traces_pb2_grpc.TracerServiceStub,
}
TRACER: Final = "tracer"
"""Name of the tracer, which is optional and needed by no request."""

GUARDED: Final = frozenset({"retriever", "ingester"})
"""Services that hold collections."""

_INFO_S: Final = 1.0
_JOBS_S: Final = 10.0
REVISIONS_S: Final = 0.15
"""Longest wait for the ingester before a stale answer is looked up."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """Status of a replica as the gateway sees it."""

    service: str
    address: str
    state: Reach
    breaker: State
    in_flight: int
    info: common_pb2.ServiceInfo | None = None
    clock_skew_s: float = 0.0
    """Least difference between the replica's clock and this gateway's; positive where the
    replica's is ahead."""


class Mesh:
    """Implements `ServiceClients` and hands out the pools of retriever and ingester.

    Args:
        on_attempt: told the service, and "first", "retry" or "hedge", of each call that leaves.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        on_attempt: Callable[[str, str], None] = lambda service, kind: None,
    ) -> None:
        self.pools = {
            name: (GuardedPool if name in GUARDED else EndpointPool)(
                name,
                getattr(settings, f"{name}_address"),
                stub,
                on_attempt=partial(on_attempt, name),
            )
            for name, stub in STUBS.items()
            if name != TRACER or settings.tracer_address
        }
        self.generators = {
            name: EndpointPool(
                "generator",
                addresses,
                STUBS["generator"],
                on_attempt=partial(on_attempt, "generator"),
            )
            for name, addresses in addresses_by_name(settings.generators).items()
        }
        """Generators that profiles name; without them, those of `pools`."""
        self.pools |= {f"generator_{name}": pool for name, pool in self.generators.items()}
        self.generators[DEFAULT_GENERATOR] = self.pools["generator"]
        self.embedder = self.pools["embedder"]
        self.retriever = self.pools["retriever"]
        self.ingester = self.pools["ingester"]
        self._token_gap_s = settings.token_gap_budget_ms / 1e3

    async def close(self) -> None:
        """Close every channel."""
        await asyncio.gather(*(pool.close() for pool in self.pools.values()))

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        """Embed interactively; returns vectors of shape (len(texts), dim), and `further`."""
        request = embedder_pb2.EmbedRequest(
            texts=texts, kind=kind, lane=common_pb2.LANE_INTERACTIVE, **dict.fromkeys(further, True)
        )
        reply: embedder_pb2.EmbedResponse = await self.embedder.call(
            "Embed", request, deadline=deadline, hedge=True
        )
        return reply

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Passages from the index."""
        reply: retriever_pb2.SearchResponse = await self.retriever.call(
            "Search", request, deadline=deadline, hedge=True
        )
        return reply

    async def neighbours(
        self, request: retriever_pb2.GetNeighboursRequest, *, deadline: Deadline
    ) -> retriever_pb2.GetNeighboursResponse:
        """Chunks beside passages of the index."""
        reply: retriever_pb2.GetNeighboursResponse = await self.retriever.call(
            "GetNeighbours", request, deadline=deadline, hedge=True
        )
        return reply

    async def revisions(self, collections: Sequence[str]) -> ingester_pb2.GetRevisionsResponse:
        """Newest revisions of collections that the ingester knows."""
        request = ingester_pb2.GetRevisionsRequest(collections=collections)
        reply: ingester_pb2.GetRevisionsResponse = await self.ingester.call(
            "GetRevisions", request, deadline=Deadline.after(REVISIONS_S)
        )
        return reply

    async def index_revisions(self, collections: Sequence[str]) -> Mapping[str, int]:
        """Return the present revisions of those collections that exist."""
        request = retriever_pb2.GetIndexRevisionsRequest(collections=collections)
        reply: retriever_pb2.GetIndexRevisionsResponse = await self.retriever.call(
            "GetIndexRevisions", request, deadline=Deadline.after(REVISIONS_S)
        )
        return reply.revisions

    async def changing_jobs(self, collection: str, job_id: str) -> Sequence[ingester_pb2.Job]:
        """Return the job of a change of documents.

        Args:
            collection: that the documents are in.
            job_id: empty where it is not known: then every job that may be it.

        Raises:
            NotFound: it is known no longer.
        """
        deadline = Deadline.after(_JOBS_S)
        with access_tags.serving(None):  # whoever made the job
            if job_id:
                wanted = ingester_pb2.GetJobRequest(id=job_id)
                return [await self.ingester.call("GetJob", wanted, deadline=deadline)]
            listed = ingester_pb2.ListJobsRequest(collection=collection, limit=1000)
            reply: ingester_pb2.ListJobsResponse = await self.ingester.call(
                "ListJobs", listed, deadline=deadline
            )
        return [job for job in reply.jobs if job.kind in ("delete", "tag")]

    async def collection_settings(
        self, collections: Sequence[str]
    ) -> Mapping[str, CollectionSettings]:
        """Return the settings of those collections that exist."""
        request = retriever_pb2.GetIndexRevisionsRequest(collections=collections)
        reply: retriever_pb2.GetIndexRevisionsResponse = await self.retriever.call(
            "GetIndexRevisions", request, deadline=Deadline.after(REVISIONS_S)
        )
        return {
            name: CollectionSettings.of(
                reply.profiles.get(name, ""),
                reply.further_vectors.get(name, retriever_pb2.FurtherVectors()),
            )
            for name in reply.revisions
        }

    async def describe(self, service: str) -> common_pb2.ServiceInfo:
        """Return what one replica of a service says of itself."""
        reply: common_pb2.ServiceInfo = await self.pools[service].call(
            "GetInfo", common_pb2.GetInfoRequest(), deadline=Deadline.after(_INFO_S)
        )
        return reply

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        """Scores of passages."""
        reply: reranker_pb2.RerankResponse = await self.pools["reranker"].call(
            "Rerank", request, deadline=deadline, hedge=True
        )
        return reply

    async def rewrite(
        self, request: generator_pb2.RewriteRequest, *, generator: str, deadline: Deadline
    ) -> generator_pb2.RewriteResponse:
        """Search texts by the model of `generator`.

        Raises:
            NotSupported: it has no language model, or is of an earlier version.
        """
        reply: generator_pb2.RewriteResponse = await self.generators[generator].call(
            "Rewrite", request, deadline=deadline
        )
        return reply

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        """The stream of the first of `generators` whose answer begins; empty for the default.

        Raises:
            DeadlineExceeded: nothing came before `first_by`, or for too long after something had,
                or the end not before `deadline`.
        """
        *others, last = generators or (DEFAULT_GENERATOR,)
        for name in others:
            has_begun = False
            # Half of the time: the next one needs some too.
            limit = first_by.within(first_by.remaining_s() / 2)
            try:
                async with aclosing(self._stream(name, request, limit, deadline)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except (Unavailable, Overloaded, DeadlineExceeded, Internal) as error:
                if has_begun:
                    raise
                log.info("the next generator is asked", generator=name, reason=error.message)
        async with aclosing(self._stream(last, request, first_by, deadline)) as events:
            async for event in events:
                yield event

    def _stream(
        self,
        name: str,
        request: generator_pb2.GenerateRequest,
        first_by: Deadline,
        deadline: Deadline,
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        return self.generators[name].stream(
            "Generate", request, deadline=deadline, first_by=first_by, gap_s=self._token_gap_s
        )

    def describe_replicas(self) -> list[ReplicaStatus]:
        """Describe every replica from local knowledge, without a call."""
        return [
            _status_of(name, endpoint)
            for name, pool in self.pools.items()
            for endpoint in pool.replicas.all
        ]

    async def query_replicas(self) -> list[ReplicaStatus]:
        """Describe every replica with its `GetInfo`, within about a second."""
        return await asyncio.gather(
            *(_query(name, each) for name, pool in self.pools.items() for each in pool.replicas.all)
        )


def _status_of(
    name: str, endpoint: Endpoint, info: common_pb2.ServiceInfo | None = None
) -> ReplicaStatus:
    return ReplicaStatus(
        service=name,
        address=endpoint.address,
        state=endpoint.reach,
        breaker=endpoint.breaker.state,
        in_flight=endpoint.in_flight,
        info=info,
    )


async def _query(name: str, endpoint: Endpoint) -> ReplicaStatus:
    if endpoint.reach is Reach.UNREACHABLE:
        return _status_of(name, endpoint)
    before_ns = time.time_ns()
    try:
        info: common_pb2.ServiceInfo = await client.call(
            endpoint.stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(_INFO_S)
        )
    except RaglanError:
        return _status_of(name, endpoint)
    skew_s = clock_skew_s(info.time_unix_nano, before_ns, time.time_ns())
    return replace(_status_of(name, endpoint, info), clock_skew_s=skew_s)


def clock_skew_s(theirs_ns: int, before_ns: int, after_ns: int) -> float:
    """Return the least difference between two clocks.

    Args:
        theirs_ns: a replica's clock when it answered; 0 where it does not tell.
        before_ns: this clock before the call.
        after_ns: this clock after it. Anywhere between the two the clocks may agree.
    """
    if not theirs_ns:
        return 0.0
    return (theirs_ns - min(max(theirs_ns, before_ns), after_ns)) / 1e9
