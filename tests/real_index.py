"""The real retriever, for tests of the ingester."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from raglan import access_tags, tenancy
from raglan.rpc import client as rpc
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, retriever_pb2, retriever_pb2_grpc
from raglan_retriever.app import build
from raglan_retriever.settings import RetrieverSettings

MODEL = common_pb2.ModelIdentity(id="fake", revision="1", dimension=8)


def of_tenant() -> list[tuple[str, str]]:
    tenant = tenancy.current()
    return [(tenancy.METADATA, tenant)] if tenant else []


class Index:
    """The real retriever, in the words of these tests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = rpc.connect(address)
        self.stub: Any = retriever_pb2_grpc.RetrieverServiceStub(self.channel)

    async def create(self, name: str = "default", *, max_versions: int = 0) -> None:
        request = retriever_pb2.CreateCollectionRequest(name=name, embedder=MODEL)
        if max_versions:
            request.versions.max_versions = max_versions
        await self.stub.CreateCollection(request, timeout=30, metadata=of_tenant())

    async def chunks(self, document_id: str) -> list[Any]:
        request = retriever_pb2.GetDocumentChunksRequest(
            collection="default", document_id=document_id
        )
        return list((await self.stub.GetDocument(request, timeout=30, metadata=of_tenant())).chunks)

    async def count(self, *ids: str) -> list[int]:
        request = retriever_pb2.CountChunksRequest(collection="default", document_ids=ids)
        return list((await self.stub.CountChunks(request, timeout=30, metadata=of_tenant())).counts)

    async def texts(self, collection: str, as_of_ms: int | None, **fields: Any) -> set[str]:
        """Texts of the chunks with the word "shared", as of a time."""
        request = retriever_pb2.SearchRequest(
            collections=[collection], text="shared", limit=100, **fields
        )
        request.mode = retriever_pb2.SEARCH_MODE_LEXICAL
        if as_of_ms is not None:
            request.as_of.FromMilliseconds(as_of_ms)
        with access_tags.serving(None):
            metadata = [*of_tenant(), *access_tags.to_metadata()]
        found = await self.stub.Search(request, timeout=30, metadata=metadata)
        return {passage.text for passage in found.passages}

    async def size(self, collection: str) -> int:
        """Chunks of a collection, those of earlier versions included."""
        request = retriever_pb2.GetCollectionRequest(name=collection)
        return int((await self.stub.GetCollection(request, timeout=30)).chunks)

    async def lose(self, document_id: str) -> None:
        request = retriever_pb2.DeleteRequest(collection="default", document_ids=[document_id])
        await self.stub.Delete(request, timeout=30, metadata=of_tenant())


async def serving(stack: AsyncExitStack, folder: Path) -> Index:
    """Serve an index in `folder` until `stack` ends."""
    settings = RetrieverSettings(port=0, shutdown_drain_s=0, data_dir=folder)
    server = Server(build(settings), settings)
    stack.push_async_callback(server.stop)
    await server.start()
    held = Index(f"127.0.0.1:{server.port}")
    stack.push_async_callback(held.channel.close)
    return held
