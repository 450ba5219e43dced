"""A tenant's ids and names, and its way from one process to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from raglan import tenancy
from raglan.deadline import Deadline
from raglan.errors import Forbidden, InvalidInput, NotFound
from raglan.rpc import client
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import retriever_pb2, retriever_pb2_grpc

LIMIT_S = 10
REQUEST = retriever_pb2.GetCollectionRequest(name="docs")


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Notes for whom it is called."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def GetCollection(self, request: Any, context: Any) -> Any:
        self.seen.append(tenancy.current())
        if request.name != "docs":
            raise NotFound(f"There is no collection {tenancy.qualified(request.name)!r}.")
        return retriever_pb2.Collection(name=tenancy.qualified(request.name))


@asynccontextmanager
async def serving(servicer: Retriever) -> AsyncIterator[str]:
    service = Service(
        "raglan.v1.RetrieverService",
        lambda to: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(servicer, to),
    )
    server = Server(service, GrpcSettings(port=0, shutdown_drain_s=0))
    await server.start()
    yield f"127.0.0.1:{server.port}"
    await server.stop()


@asynccontextmanager
async def pool(*addresses: str) -> AsyncIterator[EndpointPool]:
    made = EndpointPool("retriever", ",".join(addresses), retriever_pb2_grpc.RetrieverServiceStub)
    yield made
    await made.close()


async def called(pool: EndpointPool, name: str = "docs") -> Any:
    request = retriever_pb2.GetCollectionRequest(name=name)
    return await pool.call("GetCollection", request, deadline=Deadline.after(LIMIT_S))


@pytest.mark.parametrize("tenant", ["", "a", "acme", "0-_", "a" * 63])
def test_a_tenant_s_name_and_its_collection_s_come_back_from_the_qualified_name(
    tenant: str,
) -> None:
    with tenancy.serving(tenant):
        kept_as = tenancy.qualified("my-docs_1")
        assert tenancy.is_own(kept_as)
    assert tenancy.split(kept_as) == (tenant, "my-docs_1")
    assert len(kept_as) <= tenancy.MAX_QUALIFIED_CHARS
    assert kept_as == ("my-docs_1" if not tenant else f"{tenant}~my-docs_1")


@pytest.mark.parametrize(
    "tenant", ["A", "-a", "_a", "a~b", "a/b", "..", "a.b", "ä", "a b", "a\n", "a" * 64, "~"]
)
def test_a_malformed_tenant_is_refused(tenant: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a tenant's id"):
        tenancy.use(tenant)
    assert tenancy.current() == ""


def test_no_caller_can_name_a_collection_of_another_tenant() -> None:
    for tenant in ("", "acme"):
        with tenancy.serving(tenant), pytest.raises(InvalidInput, match="holds a tilde"):
            tenancy.qualified("beta~docs")


def test_what_is_everyone_s_is_refused_to_a_tenant() -> None:
    tenancy.refuse_tenants("Traces")
    with tenancy.serving("acme"), pytest.raises(Forbidden, match="Traces cover the whole mesh"):
        tenancy.refuse_tenants("Traces")


async def test_tasks_of_different_tenants_do_not_mix() -> None:
    async def own(tenant: str) -> None:
        tenancy.use(tenant)
        for _ in range(20):
            await asyncio.sleep(0)
            assert tenancy.current() == tenant

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(own(f"t{number}"))
    assert tenancy.current() == ""


async def test_the_tenant_reaches_the_servicer_and_ends_with_the_call() -> None:
    retriever = Retriever()
    async with serving(retriever) as address, pool(address) as calls:
        with tenancy.serving("acme"):
            assert (await called(calls)).name == "acme~docs"
        assert (await called(calls)).name == "docs"
    assert retriever.seen == ["acme", ""]


async def test_an_error_calls_a_collection_as_its_owner_does() -> None:
    async with serving(Retriever()) as address, pool(address) as calls:
        with tenancy.serving("acme"), pytest.raises(NotFound) as refused:
            await called(calls, "none")
    assert refused.value.message == "There is no collection 'none'."


async def test_a_replica_of_before_tenants_is_passed_over() -> None:
    """It has the contract's methods alone; another replica answers for the tenant."""
    old, new = Retriever(), Retriever()
    before = grpc.aio.server()
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(old, before)
    port = before.add_insecure_port("127.0.0.1:0")
    await before.start()
    async with serving(new) as address, pool(f"127.0.0.1:{port}", address) as calls:
        for _ in range(10):
            with tenancy.serving("acme"):
                assert (await called(calls)).name == "acme~docs"
    await before.stop(0)
    assert old.seen == []
    assert set(new.seen) == {"acme"}


@pytest.mark.parametrize(
    ("path", "metadata", "message"),
    [
        ("/raglan.v1.", [("raglan-tenant", "A/../b")], "cannot be a tenant's id"),
        ("/raglan.v1.", [("raglan-tenant", "a"), ("raglan-tenant", "b")], "names 2 tenants"),
        ("/tenant.raglan.v1.", [], "names none"),
        ("/tenant.raglan.v1.", [("raglan-tenant", "")], "names none"),
    ],
)
async def test_a_call_whose_tenant_is_not_clear_is_refused(
    path: str, metadata: list[tuple[str, str]], message: str
) -> None:
    retriever = Retriever()
    async with serving(retriever) as address, client.connect(address) as channel:
        call = channel.unary_unary(
            f"{path}RetrieverService/GetCollection",
            request_serializer=retriever_pb2.GetCollectionRequest.SerializeToString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(REQUEST, timeout=LIMIT_S, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in (refused.value.details() or "")
    assert retriever.seen == []
