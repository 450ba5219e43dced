"""Jobs outlive the process: killed, stopped, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1 import trace_pb2
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv
from raglan.v1 import ingester_pb2, retriever_pb2, traces_pb2, traces_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "0af7651916cd43dd8448eb211c80319c"
SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED


class IngesterProcess:
    """`python -m raglan_ingester` as a user runs it."""

    def __init__(self, process: asyncio.subprocess.Process, client: Any) -> None:
        self.process = process
        self.client = client

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(15):
            return await self.process.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def start_process(
    addresses: dict[str, str],
    embedder: Any,
    retriever: Any,
    tmp_path: Path,
    unused_tcp_port: int,
    client_of: Any,
) -> AsyncIterator[Callable[[], Awaitable[IngesterProcess]]]:
    async with AsyncExitStack() as stack:

        async def start() -> IngesterProcess:
            environment = {
                "RAGLAN_INGESTER_PORT": str(unused_tcp_port),
                "RAGLAN_INGESTER_DATA_DIR": str(tmp_path / "data"),
                "RAGLAN_INGESTER_SHUTDOWN_DRAIN_S": "0",
                "RAGLAN_INGESTER_EMBED_TEXTS_PER_CALL": "4",
                **{f"RAGLAN_INGESTER_{k.upper()}": v for k, v in addresses.items()},
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "raglan_ingester"),
                env=os.environ | environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )

            async def reap() -> None:
                if process.returncode is None:
                    process.kill()
                await process.communicate()

            stack.push_async_callback(reap)
            client = client_of(f"127.0.0.1:{unused_tcp_port}")
            stack.push_async_callback(client.channel.close)
            await client.serving()
            return IngesterProcess(process, client)

        yield start
    embedder.reset()
    retriever.reset()


async def _spans(client: Any) -> list[trace_pb2.Span]:
    """What the process has of the trace."""
    traces: Any = traces_pb2_grpc.TraceServiceStub(client.channel)
    request = traces_pb2.CollectRequest(trace_ids=[bytes.fromhex(TRACE)])
    reply = await client.call(traces.Collect, request)
    data = trace_pb2.TracesData.FromString(reply.spans)
    return [
        s for resource in data.resource_spans for scope in resource.scope_spans for s in scope.spans
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_a_job_broken_off_in_the_middle_is_completed_without_duplicates(
    start_process: Any, embedder: Any, retriever: Any, until: Any, number: int
) -> None:
    # A database that tests share holds the documents of others, whose chunks come back meanwhile.
    text = f"of a document {number}"
    documents = {f"{number}-{n:03}": f"Sentence {n} {text}. " * 60 for n in range(60)}

    def indexed() -> int:
        return sum(id_.startswith(f"{number}-") for id_ in retriever.collections["default"])

    embedder.delay_s = 0.1
    first = await start_process()
    with request_context.incoming({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        job = await first.client.submit(documents)
    await until(lambda: 8 <= indexed() < 100)

    await first.end(number)
    done_before = indexed()
    second = await start_process()
    embedder.delay_s = 0
    ended = await second.client.ended(job)

    assert 0 < done_before < 120
    assert ended.status == SUCCEEDED
    assert indexed() == 120
    for id_, whole in documents.items():
        chunks = retriever.chunks("default", id_)
        assert [chunk.ordinal for chunk in chunks] == [0, 1]
        assert all(chunk.text == whole[chunk.start : chunk.end] for chunk in chunks)
    # What had been indexed was not embedded again (but for what was under way).
    assert sum(text in each for each in embedder.texts) < 120 + 80
    assert [(s.stage, s.done, s.total) for s in ended.stages] == [
        ("parse", 60, 60),
        ("chunk", 60, 60),
        ("embed", 120, 120),
        ("index", 120, 120),
    ]
    (resumed,) = [span for span in await _spans(second.client) if span.name == semconv.INGEST_JOB]
    # Its parent is the upload, and it names the run that was broken off.
    assert len(resumed.links) == 1
    assert resumed.links[0].trace_id.hex() == TRACE
    assert resumed.links[0].span_id not in (resumed.span_id, resumed.parent_span_id)
    assert any(each.key == semconv.RESUMED and each.value.bool_value for each in resumed.attributes)


async def test_a_stopped_ingester_ends_at_once_and_prints_nothing(
    start_process: Any, embedder: Any, until: Any
) -> None:
    embedder.gate.clear()
    running = await start_process()
    await running.client.submit({"a": "Alpha."})
    await until(lambda: embedder.in_flight > 0)

    status = await running.end(signal.SIGTERM)

    assert status == 0
    assert await running.process.stdout.read() == b""


async def test_a_job_waiting_for_its_turn_runs_after_a_restart(
    start_process: Any, embedder: Any, until: Any
) -> None:
    embedder.gate.clear()
    first = await start_process()
    jobs = [await first.client.submit({f"d{n}": f"Text {n}."}) for n in range(4)]
    await until(lambda: embedder.in_flight > 0)
    await first.end(signal.SIGKILL)

    second = await start_process()
    embedder.gate.set()

    assert [(await second.client.ended(job)).status for job in jobs] == [SUCCEEDED] * 4


async def test_a_job_by_filter_that_is_killed_goes_on_where_it_was(
    start_process: Any, retriever: Any, until: Any
) -> None:
    documents = [
        (ingester_pb2.DocumentHeader(document_id=f"f-{n:03}", media_type="text/plain",
                                     metadata_json='{"team":"x"}'), b"Some words.")
        for n in range(450)
    ]  # fmt: skip
    first = await start_process()
    job = await first.client.ended(await first.client.submit(documents))
    assert job.status == SUCCEEDED
    eq = retriever_pb2.Condition(field="team", eq=retriever_pb2.Value(text="x"))
    request = ingester_pb2.ChangeDocumentsRequest(
        collection="default",
        filter=retriever_pb2.Filter(condition=eq),
        tagging=ingester_pb2.DocumentTagging(metadata_json='{"year":1}', add_access=["hr"]),
        allow_all=True,
    )
    calls = retriever.label_calls
    # The second batch never ends.
    retriever.hold_labels_after = calls + 1
    job = (await first.client.call(first.client.stub.ChangeDocuments, request)).job
    await until(lambda: retriever.label_calls == calls + 2)
    await first.end(signal.SIGKILL)
    retriever.hold_labels_after = None
    second = await start_process()
    done = await second.client.ended(job, timeout_s=60)
    assert (done.status, done.stages[0].done) == (SUCCEEDED, 450)
    assert retriever.label_calls <= calls + 2 + 5  # not from the beginning, but for one batch
    held = retriever.collections["default"].values()
    assert {tuple(c.access) for c in held if c.document_id.startswith("f-")} == {("hr",)}
    # In a database that tests share, their chunks would come back before those of the next test.
    request = ingester_pb2.DeleteDocumentsRequest(collection="default")
    await second.client.call(second.client.stub.DeleteDocuments, request)
