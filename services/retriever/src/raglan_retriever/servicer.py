"""The rpcs of `raglan.v1.RetrieverService`: wire in, index, wire out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import grpc
from raglan import tenancy, tensors
from raglan.chunking_strategy import STRUCTURE
from raglan.deadline import Deadline
from raglan.rpc import pages
from raglan.rpc.dependency import Dependency
from raglan.rpc.service_info import service_info
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, retriever_pb2, retriever_pb2_grpc

from raglan_retriever import wire
from raglan_retriever.collection import NO_FURTHER_VECTORS
from raglan_retriever.index import Index
from raglan_retriever.query import Fusion
from raglan_retriever.transfer import Transfer

Context = grpc.aio.ServicerContext[Any, Any]

_PROBLEMS_SHOWN: Final = 100


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """Each rpc is one call of the index."""

    def __init__(
        self,
        index: Index,
        *,
        fusion: Fusion,
        metrics_port: Callable[[], int] = lambda: 0,
        dependencies: Sequence[Dependency] = (),
    ) -> None:
        """Serve `index`.

        Args:
            index: Holds the collections.
            fusion: Parameters of a search that names none.
            metrics_port: Returns the port of the metrics; 0 where there is none.
            dependencies: Servers behind the store; not owned.
        """
        self._index = index
        self._transfer = Transfer(index)
        self._dependencies = dependencies
        self._metrics_port = metrics_port
        self._fusion = fusion

    async def CreateCollection(
        self, request: retriever_pb2.CreateCollectionRequest, context: Context
    ) -> retriever_pb2.Collection:
        await self._index.create(
            request.name,
            wire.model_from_proto(request.embedder),
            request.chunking.max_chars,
            request.chunking.overlap_chars,
            request.chunking.strategy or STRUCTURE,
            wire.further_from_proto(request.further_vectors),
            contextual=request.chunking.contextual,
            versions=wire.retention_from_proto(request),
        )
        return wire.collection_to_proto(*await self._index.stats(request.name))

    async def GetCollection(
        self, request: retriever_pb2.GetCollectionRequest, context: Context
    ) -> retriever_pb2.Collection:
        return wire.collection_to_proto(*await self._index.stats(request.name))

    async def ListCollections(
        self, request: retriever_pb2.ListCollectionsRequest, context: Context
    ) -> retriever_pb2.ListCollectionsResponse:
        everyone = request.all_tenants
        if everyone:
            tenancy.refuse_tenants("The collections of all tenants")
        stats = await self._index.all_stats(all_tenants=everyone)
        store = self._index.all_tenants if everyone else self._index.store
        found = [wire.collection_to_proto(*pair) for pair in stats]
        found += [
            retriever_pb2.Collection(name=name, error=reason)
            for name, reason in store.set_aside().items()
        ]
        found.sort(key=lambda collection: collection.name)
        return retriever_pb2.ListCollectionsResponse(collections=found)

    async def UpdateCollection(
        self, request: retriever_pb2.UpdateCollectionRequest, context: Context
    ) -> retriever_pb2.Collection:
        if request.HasField("profile"):
            await self._index.set_profile(request.name, request.profile)
        if request.HasField("recall_target"):
            await self._index.set_recall(request.name, request.recall_target or None)
        return wire.collection_to_proto(*await self._index.stats(request.name))

    async def DeleteCollection(
        self, request: retriever_pb2.DeleteCollectionRequest, context: Context
    ) -> retriever_pb2.DeleteCollectionResponse:
        removed = await self._index.drop(request.name)
        return retriever_pb2.DeleteCollectionResponse(
            deleted_chunks=removed.chunks, revision=removed.revision
        )

    async def Upsert(
        self, request: retriever_pb2.UpsertRequest, context: Context
    ) -> retriever_pb2.UpsertResponse:
        started = time.perf_counter_ns()
        revision = await self._index.upsert(
            request.collection,
            wire.model_from_proto(request.embedder),
            [wire.chunk_from_proto(chunk) for chunk in request.chunks],
            tensors.unpack(request.vectors),
            request.readability,
            wire.chunk_vectors_from_proto(request),
        )
        return retriever_pb2.UpsertResponse(
            upserted=len(request.chunks),
            timing=_timing(started, len(request.chunks)),
            revision=revision,
        )

    async def Delete(
        self, request: retriever_pb2.DeleteRequest, context: Context
    ) -> retriever_pb2.DeleteResponse:
        removed = await self._index.delete(
            request.collection, request.document_ids, request.keep_chunk_ids
        )
        return retriever_pb2.DeleteResponse(
            deleted_chunks=removed.chunks, revision=removed.revision
        )

    async def LabelDocuments(
        self, request: retriever_pb2.LabelDocumentsRequest, context: Context
    ) -> retriever_pb2.LabelDocumentsResponse:
        changed = await self._index.label(
            request.collection,
            {each.document_id: (each.metadata_json, each.access) for each in request.documents},
        )
        return retriever_pb2.LabelDocumentsResponse(
            labelled_chunks=changed.chunks, revision=changed.revision
        )

    async def KeepVersions(
        self, request: retriever_pb2.KeepVersionsRequest, context: Context
    ) -> retriever_pb2.KeepVersionsResponse:
        removed = await self._index.keep_versions(request.collection, wire.kept_from_proto(request))
        return retriever_pb2.KeepVersionsResponse(
            deleted_chunks=removed.chunks, revision=removed.revision
        )

    async def GetDocument(
        self, request: retriever_pb2.GetDocumentChunksRequest, context: Context
    ) -> retriever_pb2.GetDocumentChunksResponse:
        chunks = await self._index.document(
            request.collection, request.document_id, request.version
        )
        page = pages.first_page(wire.chunk_to_proto(chunk) for chunk in chunks[request.offset :])
        end = request.offset + len(page)
        return retriever_pb2.GetDocumentChunksResponse(
            chunks=page, next_offset=end if end < len(chunks) else 0
        )

    async def CountChunks(
        self, request: retriever_pb2.CountChunksRequest, context: Context
    ) -> retriever_pb2.CountChunksResponse:
        counts = await self._index.count(request.collection, request.document_ids)
        return retriever_pb2.CountChunksResponse(counts=counts)

    async def Search(
        self, request: retriever_pb2.SearchRequest, context: Context
    ) -> retriever_pb2.SearchResponse:
        deadline = Deadline.of(context)
        deadline.check("the search began")
        tracing.current().set_attributes(
            {semconv.KIND: semconv.RETRIEVER, semconv.OPERATION: semconv.RETRIEVAL}
        )
        started = time.perf_counter_ns()
        query = wire.query_from_proto(request, self._fusion)
        results = await self._index.search(query.within(deadline.remaining_s()))
        return retriever_pb2.SearchResponse(
            passages=[
                wire.passage_to_proto(rank, hit) for rank, hit in enumerate(results.found, 1)
            ],
            timing=_timing(started, 1),
            revisions=results.revisions,
            searched=[wire.searched_to_proto(each) for each in results.searched],
            synonyms=wire.synonyms_to_proto(results.synonyms),
        )

    async def GetNeighbours(
        self, request: retriever_pb2.GetNeighboursRequest, context: Context
    ) -> retriever_pb2.GetNeighboursResponse:
        started = time.perf_counter_ns()
        wanted = wire.neighbourhoods_from_proto(request)
        found = await self._index.neighbours(
            wanted, wire.filter_from_proto(request), wire.as_of_from_proto(request)
        )
        return retriever_pb2.GetNeighboursResponse(
            chunks=pages.first_page(wire.chunk_passage(*each) for each in found),
            timing=_timing(started, len(found)),
        )

    async def GetIndexRevisions(
        self, request: retriever_pb2.GetIndexRevisionsRequest, context: Context
    ) -> retriever_pb2.GetIndexRevisionsResponse:
        held = await self._index.versioned(request.collections)
        described = [each.collection for each in held]
        return retriever_pb2.GetIndexRevisionsResponse(
            revisions={each.collection.name: each.revision for each in held},
            profiles={each.name: each.profile for each in described if each.profile},
            further_vectors={
                each.name: wire.further_to_proto(each.further_vectors)
                for each in described
                if each.further_vectors != NO_FURTHER_VECTORS
            },
        )

    async def ExportCollection(
        self, request: retriever_pb2.GetCollectionRequest, context: Context
    ) -> retriever_pb2.CollectionDescription:
        return wire.description_to_proto(await self._transfer.description(request.name))

    async def ImportCollection(
        self, request: retriever_pb2.CollectionDescription, context: Context
    ) -> retriever_pb2.Collection:
        await self._transfer.create(wire.description_from_proto(request))
        return wire.collection_to_proto(*await self._index.stats(request.name))

    async def ExportChunks(
        self, request: retriever_pb2.ExportChunksRequest, context: Context
    ) -> retriever_pb2.ExportChunksResponse:
        held = await self._transfer.chunks(request.collection, request.chunk_ids)
        found = await asyncio.to_thread(wire.indexed_to_proto, request.collection, held)
        answered = len(request.chunk_ids)
        if len(found.chunks) < len(held.chunks):
            answered = list(request.chunk_ids).index(held.chunks[len(found.chunks)].chunk_id)
        return retriever_pb2.ExportChunksResponse(found=found, answered=answered)

    async def ImportChunks(
        self, request: retriever_pb2.ImportChunksRequest, context: Context
    ) -> retriever_pb2.UpsertResponse:
        started = time.perf_counter_ns()
        held = await asyncio.to_thread(wire.indexed_from_proto, request.chunks)
        revision = await self._transfer.add(request.chunks.collection, held)
        count = len(held.chunks)
        return retriever_pb2.UpsertResponse(
            upserted=count, timing=_timing(started, count), revision=revision
        )

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        limits = self._index.limits
        facts = common_pb2.ServiceInfo(
            engine=self._index.store.name,
            limits={
                "max_limit": limits.max_limit,
                "max_upsert_chunks": limits.max_upsert_chunks,
            },
            load={"damaged_collections": len(damaged := self._index.all_tenants.set_aside())},
            problems=[
                f"Collection {name!r} is set aside: {reason}."
                for name, reason in islice(sorted(damaged.items()), _PROBLEMS_SHOWN)
            ],
            dependencies=[await each.state() for each in self._dependencies],
        )
        return service_info("retriever", facts, metrics_port=self._metrics_port())


def _timing(started_ns: int, batch_size: int) -> common_pb2.Timing:
    elapsed = time.perf_counter_ns() - started_ns
    return common_pb2.Timing(compute_ns=elapsed, batch_size=batch_size)
