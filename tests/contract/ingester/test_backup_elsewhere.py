"""A backup of one kind of database restores into the other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ports
import pytest
import pytest_asyncio
from postgres_server import PostgresServer
from raglan.rpc import client as rpc
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, ingester_pb2, retriever_pb2, retriever_pb2_grpc
from raglan_retriever.app import build as build_retriever
from raglan_retriever.settings import RetrieverSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = common_pb2.ModelIdentity(id="fake", revision="1", dimension=8)
Deployment = tuple[Any, Any]
"""Clients of an ingester and of its retriever."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest_asyncio.fixture(loop_scope="module")
async def deploy(
    serve: Any, embedder: Any, client_of: Any, tmp_path: Path
) -> AsyncIterator[Callable[[str], Awaitable[Deployment]]]:
    """Starts an ingester on a database, "" for a file of its own, with a retriever of its own."""
    async with AsyncExitStack() as stack:
        embeds = await serve(embedder)

        async def one(database_url: str) -> Deployment:
            folder = tmp_path / f"deployment-{ports.free_port()}"
            chosen = RetrieverSettings(port=0, shutdown_drain_s=0, data_dir=folder / "index")
            server = Server(build_retriever(chosen), chosen)
            stack.push_async_callback(server.stop)
            await server.start()
            index = f"127.0.0.1:{server.port}"
            settings = {
                "port": ports.free_port(),
                "data_dir": folder,
                "database_url": database_url,
                "embedder_address": embeds,
                "retriever_address": index,
                "shutdown_drain_s": 0,
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "raglan_ingester"),
                env=os.environ
                | {f"RAGLAN_INGESTER_{k.upper()}": str(v) for k, v in settings.items()},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )

            async def reap() -> None:
                process.kill()
                await process.wait()

            stack.push_async_callback(reap)
            client = client_of(f"127.0.0.1:{settings['port']}")
            stack.push_async_callback(client.channel.close)
            await client.serving()
            channel = rpc.connect(index)
            stack.push_async_callback(channel.close)
            return client, retriever_pb2_grpc.RetrieverServiceStub(channel)

        yield one


async def command(*arguments: object) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raglan_cli", *map(str, arguments)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def held(deployment: Deployment, *ids: str) -> list[tuple[Any, list[Any]]]:
    """Each document with its chunks."""
    client, index = deployment
    found = []
    for id_ in ids:
        request = retriever_pb2.GetDocumentChunksRequest(collection="default", document_id=id_)
        chunks = list((await index.GetDocument(request, timeout=10)).chunks)
        found.append((await client.document(id_), chunks))
    return found


async def test_a_backup_moves_a_deployment_into_the_other_kind_of_database_and_back(
    deploy: Callable[[str], Awaitable[Deployment]], postgres: PostgresServer, tmp_path: Path
) -> None:
    on_file = await deploy("")
    create = retriever_pb2.CreateCollectionRequest(name="default", embedder=MODEL)
    await on_file[1].CreateCollection(create, timeout=10)
    texts = {f"d{n:02}": f"Ünïcode, {n}. " * 40 for n in range(30)}
    job = await on_file[0].ended(await on_file[0].submit(texts))
    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    before = await held(on_file, *texts)

    await command("backup", tmp_path / "first", "--ingester", on_file[0].address)
    on_server = await deploy(postgres.url)
    await command("restore", tmp_path / "first", "--ingester", on_server[0].address)
    assert await held(on_server, *texts) == before
    assert (await on_server[0].job(job.id)).status == ingester_pb2.JOB_STATUS_SUCCEEDED
    # The sequences of the server go on behind the restored rows.
    more = await on_server[0].ended(await on_server[0].submit({"new": "One more."}))
    assert more.status == ingester_pb2.JOB_STATUS_SUCCEEDED

    await command("backup", tmp_path / "second", "--ingester", on_server[0].address)
    again = await deploy("")
    await command("restore", tmp_path / "second", "--ingester", again[0].address)
    assert await held(again, *texts) == before
    assert (await again[0].document("new")).text == "One more."
