"""Ingesters on a real PostgreSQL: it restarts, and of two processes one is killed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ports
import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from postgres_server import PostgresServer
from raglan.database import Database, now_ms, url_of
from raglan.errors import Unavailable
from raglan.v1 import ingester_pb2
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import Item, Job
from raglan_ingester.schema import SCHEMA

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED
Start = Callable[[], Awaitable[tuple[asyncio.subprocess.Process, Any]]]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server a test: a killed ingester leaves jobs whose blobs lie in its test's folder."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest_asyncio.fixture(loop_scope="module")
async def start(
    postgres: PostgresServer,
    addresses: dict[str, str],
    embedder: Any,
    retriever: Any,
    tmp_path: Path,
    client_of: Any,
) -> AsyncIterator[Start]:
    """Starts ingesters that share the database and one data folder."""
    async with AsyncExitStack() as stack:

        async def one() -> tuple[asyncio.subprocess.Process, Any]:
            port = ports.free_port()
            settings = addresses | {
                "port": port,
                "data_dir": tmp_path / "data",
                "database_url": postgres.url,
                "shutdown_drain_s": 0,
                "embed_texts_per_call": 4,
                "worker_lease_s": 3,
                "concurrent_jobs": 2,
            }
            environment = {f"RAGLAN_INGESTER_{k.upper()}": str(v) for k, v in settings.items()}
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "raglan_ingester"),
                env=os.environ | environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )

            async def reap() -> None:
                if process.returncode is None:
                    process.kill()
                await process.wait()

            stack.push_async_callback(reap)
            client = client_of(f"127.0.0.1:{port}")
            stack.push_async_callback(client.channel.close)
            await client.serving()
            return process, client

        yield one
    embedder.reset()
    retriever.reset()


async def test_a_job_goes_on_by_itself_when_the_database_is_back(
    start: Start, postgres: PostgresServer, embedder: Any, retriever: Any, until: Any
) -> None:
    _, client = await start()
    embedder.error = lambda texts: embedder.gate.clear() if len(embedder.texts) > 8 else None
    job = await client.submit({f"d{n:02}": f"Sentence {n}. " * 100 for n in range(60)})
    await until(lambda: not embedder.gate.is_set() and embedder.in_flight > 0, 60)

    await asyncio.to_thread(postgres.stop)
    embedder.error = lambda texts: None
    embedder.gate.set()
    with pytest.raises(Unavailable, match="database"):
        await client.job(job.id)
    await asyncio.to_thread(postgres.start)
    ended = await client.ended(job, timeout_s=60)

    assert ended.status == SUCCEEDED
    assert (await client.document("d59")).text == "Sentence 59. " * 100


async def test_a_job_that_is_recorded_but_not_queued_is_found(
    start: Start, postgres: PostgresServer, tmp_path: Path
) -> None:
    killed, _ = await start()  # makes the tables; a running one would purge a blob without a row
    killed.kill()
    await killed.wait()
    data = b"Left behind."
    sha256 = hashlib.sha256(data).hexdigest()
    blob = tmp_path / "data" / "blobs" / sha256[:2] / sha256[2:]
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    database = Database(url_of(postgres.url, tmp_path / "ingester.sqlite"), SCHEMA)
    job = Job(id="job-lost", collection="default", documents=1, created_ms=now_ms(), stages={})
    item = Item(
        job_id=job.id,
        ordinal=0,
        document_id="left",
        media_type="text/plain",
        sha256=sha256,
        size_bytes=len(data),
    )

    await JobStore(database).add(job, [item])
    await database.close()

    _, client = await start()
    ended = await client.ended(job)
    assert (ended.status, list(ended.errors)) == (SUCCEEDED, [])
    assert (await client.document("left")).text == "Left behind."


async def test_the_jobs_of_a_killed_ingester_move_to_the_other(
    start: Start, embedder: Any, retriever: Any, until: Any
) -> None:
    first, first_client = await start()
    _, second_client = await start()
    embedder.gate.clear()
    jobs = [await first_client.submit({f"d{n}": f"Text {n}."}) for n in range(4)]
    # Each runs two jobs of a collection at most.
    await until(lambda: embedder.in_flight == 4, 60)

    first.send_signal(signal.SIGKILL)
    await first.wait()
    embedder.gate.set()

    ended = [await second_client.ended(job, timeout_s=60) for job in jobs]
    assert [job.status for job in ended] == [SUCCEEDED] * 4
    assert len(retriever.collections["default"]) == 4


async def test_a_document_sent_to_one_ingester_is_read_and_deleted_by_the_other(
    start: Start, tmp_path: Path
) -> None:
    _, first = await start()
    _, second = await start()
    await second.ended(await first.submit({"shared": "A text for both."}))

    assert (await second.document("shared")).text == "A text for both."
    await second.delete("shared")

    blobs = [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    assert blobs == []


async def test_a_database_of_the_c_locale_keeps_unicode(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Such as an init script in a container makes, where no locale is set."""
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute(
            "CREATE DATABASE plain ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' "
            "TEMPLATE template0"
        )
    url = postgres.url.rpartition("/")[0] + "/plain"
    database = Database(url_of(url, tmp_path / "ingester.sqlite"), SCHEMA)
    try:
        await database.create()
        found = await database.run(
            lambda session: session.scalar(
                sa.text("SELECT upper(:word) || :word"), {"word": "grüße"}
            )
        )
    finally:
        await database.close()
    assert found == "GRüßEgrüße"
