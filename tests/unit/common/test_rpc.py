"""What the border of every rpc promises, over a real server on loopback."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan import errors
from raglan.deadline import Deadline
from raglan.health import Health
from raglan.rpc import addresses, client, health_service
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.telemetry import context as request_context
from raglan.v1 import (
    common_pb2,
    generator_pb2,
    generator_pb2_grpc,
    ingester_pb2,
    ingester_pb2_grpc,
)
from structlog.testing import capture_logs


class Servicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Does what the question says."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.request_id = ""
        self.trace_id = ""

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="a"))
        if request.question == "endless":
            async with aclosing(self._endless()) as events:
                async for event in events:
                    yield event
        if request.question == "fail":
            raise errors.Overloaded("full", retry_after_s=1.5)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _endless(self) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        try:
            while True:
                yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="x" * 10_000))
        finally:
            self.cancelled.set()

    async def GetInfo(self, request, context):  # type: ignore[no-untyped-def]
        self.request_id = request_context.request_id()
        self.trace_id = request_context.trace_id()
        raise self.error

    error: Exception = errors.NotFound("no such thing")


@asynccontextmanager
async def running(servicer: Servicer) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceStub]:
    service = Service(
        name="raglan.v1.GeneratorService",
        register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, s),
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()
    channel = client.connect(f"127.0.0.1:{server.port}")
    try:
        yield generator_pb2_grpc.GeneratorServiceStub(channel)
    finally:
        await channel.close()
        await server.stop()


@pytest.mark.parametrize("error_class", [e for e in errors.TABLE if e is not errors.Cancelled])
async def test_every_error_arrives_as_the_class_that_was_raised(
    error_class: type[errors.RaglanError],
) -> None:
    servicer = Servicer()
    servicer.error = error_class("the very sentence")
    async with running(servicer) as stub:
        with pytest.raises(error_class) as caught:
            await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert type(caught.value) is error_class
    if error_class is not errors.DeadlineExceeded:
        assert caught.value.message == "the very sentence"


async def test_a_call_is_one_line_at_debug_alone() -> None:
    servicer = Servicer()
    async with running(servicer) as stub:
        with capture_logs() as logs, pytest.raises(errors.NotFound):
            await client.call(
                stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(60)
            )
    (line,) = [each for each in logs if each["event"] == "rpc"]
    assert (line["log_level"], line["status"]) == ("debug", "NOT_FOUND")
    assert {each["log_level"] for each in logs} == {"debug"}


async def test_retry_after_crosses_the_wire() -> None:
    servicer = Servicer()
    async with running(servicer) as stub:
        with pytest.raises(errors.Overloaded) as caught:
            request = generator_pb2.GenerateRequest(question="fail")
            async with aclosing(
                client.stream(stub.Generate, request, deadline=Deadline.after(5))
            ) as replies:
                async for _ in replies:
                    pass
    assert caught.value.retry_after_s == 1.5


async def test_an_unexpected_error_shows_nothing_of_its_cause() -> None:
    servicer = Servicer()
    servicer.error = ValueError("password=hunter2")
    async with running(servicer) as stub:
        with pytest.raises(errors.Internal) as caught:
            await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert "hunter2" not in caught.value.message


async def test_a_call_without_a_deadline_is_refused() -> None:
    async with running(Servicer()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetInfo(common_pb2.GetInfoRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_leaving_a_stream_cancels_it_at_the_server() -> None:
    servicer = Servicer()
    async with running(servicer) as stub:
        request = generator_pb2.GenerateRequest(question="slow")
        async with aclosing(
            client.stream(stub.Generate, request, deadline=Deadline.after(20))
        ) as replies:
            async for reply in replies:
                assert reply.delta.text == "a"
                break
        await asyncio.wait_for(servicer.cancelled.wait(), 2)


async def test_a_stream_left_while_the_server_sends_ends_there_without_an_error() -> None:
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: unhandled.append(found))
    servicer = Servicer()
    async with running(servicer) as stub:
        for _ in range(5):
            servicer.cancelled.clear()
            request = generator_pb2.GenerateRequest(question="endless")
            replies = client.stream(stub.Generate, request, deadline=Deadline.after(20))
            async with aclosing(replies):
                assert (await anext(replies)).delta.text == "a"
                # The server has filled the window by now, and waits in the middle of a send.
                await asyncio.sleep(0.05)
            await asyncio.wait_for(servicer.cancelled.wait(), 2)
    gc.collect()
    await asyncio.sleep(0)
    assert unhandled == []


async def test_a_passed_deadline_makes_no_call() -> None:
    servicer = Servicer()
    async with running(servicer) as stub:
        with pytest.raises(errors.DeadlineExceeded):
            await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(0))
    assert servicer.trace_id == ""


async def test_request_id_and_trace_pass_to_the_next_hop() -> None:
    servicer = Servicer()
    trace = "0af7651916cd43dd8448eb211c80319c"
    carrier = {"x-request-id": "abc-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with running(servicer) as stub:
        with request_context.incoming(carrier), pytest.raises(errors.NotFound):
            await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert (servicer.request_id, servicer.trace_id) == ("abc-1", trace)


@pytest.mark.parametrize("hostile", ["", "a" * 65, "a b", "a\nb", "ä"])
def test_an_unusable_request_id_is_replaced(hostile: str) -> None:
    with request_context.incoming({"x-request-id": hostile, "traceparent": "garbage"}) as id_:
        assert id_
        assert id_ != hostile
        assert len(request_context.trace_id()) == 32


async def test_a_server_that_is_gone_is_unavailable_in_a_sentence() -> None:
    channel = client.connect("127.0.0.1:1")
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    with pytest.raises(errors.Unavailable, match=r"The generator cannot be reached\."):
        await client.call(
            stub.GetInfo,
            common_pb2.GetInfoRequest(),
            deadline=Deadline.after(5),
            to="the generator",
        )
    await channel.close()


async def test_health_says_serving_only_after_start() -> None:
    gate = asyncio.Event()

    async def start() -> None:
        await gate.wait()

    server = Server(
        Service(name="raglan.v1.GeneratorService", register=lambda _: None, start=start),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1),
    )
    starting = asyncio.create_task(server.start())
    while not server.port:
        await asyncio.sleep(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest(service="raglan.v1.GeneratorService")
        before = await health.Check(ask, timeout=5, wait_for_ready=True)
        gate.set()
        await starting
        after = await health.Check(ask, timeout=5)
    await server.stop()
    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_service_is_live_unless_its_work_stalls() -> None:
    """Neither loading nor draining is a reason to restart it."""
    gate = asyncio.Event()
    health = Health.SERVING

    async def start() -> None:
        await gate.wait()

    server = Server(
        Service(
            name="raglan.v1.GeneratorService",
            register=lambda _: None,
            start=start,
            health=lambda: health,
        ),
        GrpcSettings(shutdown_drain_s=2, shutdown_grace_s=0.1),
    )
    starting = asyncio.create_task(server.start())
    while not server.port:
        await asyncio.sleep(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def is_serving(name: str) -> bool:
            ask = health_pb2.HealthCheckRequest(service=name)
            reply = await stub.Check(ask, timeout=5, wait_for_ready=True)
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

        async def until_ready_is(*, serving: bool) -> None:
            while await is_serving(server.service.name) is not serving:
                await asyncio.sleep(0.05)

        assert await is_serving(health_service.LIVE)
        assert not await is_serving(server.service.name)
        gate.set()
        await starting
        assert await is_serving(health_service.LIVE)
        health = Health.STALLED
        await until_ready_is(serving=False)
        assert not await is_serving(health_service.LIVE)
        health = Health.SERVING
        await until_ready_is(serving=True)
        stopping = asyncio.create_task(server.stop())
        await until_ready_is(serving=False)
        assert await is_serving(health_service.LIVE)
    await stopping


async def test_a_taken_port_is_refused_naming_the_setting() -> None:
    service = Service(name="x", register=lambda _: None)
    first = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await first.start()
    second = Server(service, GrpcSettings(port=first.port, shutdown_drain_s=0, shutdown_grace_s=0))
    with pytest.raises(errors.Unavailable, match=f"{first.port}.*PORT"):
        await second.start()
    await first.stop()


async def test_an_upload_that_is_refused_at_its_beginning_says_why() -> None:
    """A client whose write fails because the call is over reports an error of its own."""

    class Refuses(ingester_pb2_grpc.IngesterServiceServicer):
        async def Submit(self, request_iterator, context):  # type: ignore[no-untyped-def]
            async for _ in request_iterator:
                raise errors.NotFound("There is no such collection.")

    service = Service(
        name="raglan.v1.IngesterService",
        register=lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(Refuses(), s),
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()

    async def messages() -> AsyncIterator[ingester_pb2.SubmitRequest]:
        for _ in range(20):
            yield ingester_pb2.SubmitRequest(data=bytes(20_000))

    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        stub = ingester_pb2_grpc.IngesterServiceStub(channel)

        async def upload() -> str:
            with pytest.raises(errors.RaglanError) as caught:
                await client.call(stub.Submit, messages(), deadline=Deadline.after(10))
            return caught.value.message

        for _ in range(50):
            said = await asyncio.gather(*(upload() for _ in range(10)))
            assert set(said) == {"There is no such collection."}
    await server.stop()


async def test_a_new_channel_does_not_inherit_the_failures_of_an_older_one() -> None:
    service = Service(name="x", register=lambda _: None)
    gone = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await gone.start()
    await gone.stop()
    address, asked = f"127.0.0.1:{gone.port}", health_pb2.HealthCheckRequest()
    async with client.connect(address) as before:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(before).Check(asked, timeout=5)
        back = Server(service, GrpcSettings(port=gone.port, shutdown_drain_s=0, shutdown_grace_s=0))
        await back.start()
        async with client.connect(address) as after:
            await health_pb2_grpc.HealthStub(after).Check(asked, timeout=5)
        await back.stop()


@pytest.mark.parametrize(
    "kind",
    [kind for kind in errors.TABLE if kind is not errors.Cancelled],
    ids=lambda e: e.__name__,
)
async def test_every_error_keeps_its_kind_over_the_wire(kind):
    servicer = Servicer()
    servicer.error = kind("because")
    async with running(servicer) as stub:
        with pytest.raises(errors.RaglanError) as raised:
            await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert type(raised.value) is kind


def test_no_space_is_507_and_not_for_retrying():
    row = errors.wire(errors.StorageFull("full"))
    assert (row.http, row.status, row.retryable) == (507, "RESOURCE_EXHAUSTED", False)
    assert type(errors.from_status("RESOURCE_EXHAUSTED", "")) is errors.Overloaded


@pytest.mark.parametrize("text", ["文" * 2_000, "x" * 20_000, "é" * 9_000, "😀" * 3_000])
async def test_a_long_message_arrives_cut_and_with_its_own_status(text: str) -> None:
    servicer = Servicer()
    servicer.error = errors.Conflict(text)
    async with running(servicer) as stub:
        with pytest.raises(errors.Conflict) as refused:
            await client.call(
                stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(10)
            )
    message = refused.value.message
    assert len(message.encode()) <= errors.MAX_MESSAGE_BYTES
    assert message.endswith("...")
    assert message[:-3] == text[: len(message) - 3]


async def test_a_message_beyond_grpcs_limit_is_too_large_and_never_overload() -> None:
    large = generator_pb2.GenerateRequest(question="x" * 17 * 1024 * 1024)
    async with running(Servicer()) as stub:
        with pytest.raises(errors.PayloadTooLarge, match="too large: .*larger than max"):
            async for _ in client.stream(stub.Generate, large, deadline=Deadline.after(10)):
                pass


async def test_a_reply_beyond_grpcs_limit_is_too_large_and_never_overload() -> None:
    servicer = Servicer()

    async def info(request, context):  # type: ignore[no-untyped-def]
        return common_pb2.ServiceInfo(service="x" * 17 * 1024 * 1024)

    servicer.GetInfo = info  # type: ignore[method-assign]
    async with running(servicer) as stub:
        with pytest.raises(errors.PayloadTooLarge, match="larger than max"):
            await client.call(
                stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(10)
            )


async def test_a_server_that_takes_no_more_calls_is_overloaded() -> None:
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        "Concurrent RPC limit exceeded!",
    )
    error = client.from_rpc_error(failed, "the retriever")
    assert isinstance(error, errors.Overloaded)
    assert error.message == "The retriever takes no more calls for the moment."


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_a_service_listens_on_ipv6(host: str) -> None:
    service = Service("raglan.v1.Fake", lambda server: None)
    server = Server(service, GrpcSettings(host=host, shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"[::1]:{server.port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
            reply = await check(health_pb2.HealthCheckRequest(), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.stop()


def test_a_file_of_addresses_may_be_indented_and_commented(tmp_path: Path) -> None:
    path = tmp_path / "embedder.addresses"
    path.write_text("# ours\n  10.0.0.1:7101  # the fast one\n\t# none\n\n[::1]:7101\n")
    assert addresses._read(path).fixed == {"10.0.0.1:7101", "[::1]:7101"}


async def test_bytes_that_are_no_message_are_invalid_input() -> None:
    """gRPC's own answer is UNKNOWN, with a traceback in the log."""

    class Reads(ingester_pb2_grpc.IngesterServiceServicer):
        async def Submit(self, request_iterator, context):  # type: ignore[no-untyped-def]
            async for _ in request_iterator:
                pass
            return ingester_pb2.Job()

        async def GetJob(self, request, context):  # type: ignore[no-untyped-def]
            return ingester_pb2.Job()

        async def WatchJob(self, request, context):  # type: ignore[no-untyped-def]
            yield ingester_pb2.Job()

    name = "raglan.v1.IngesterService"
    service = Service(
        name=name,
        register=lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(Reads(), s),
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()
    broken = b"\xff"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        whole = channel.unary_unary(f"/{name}/GetJob")
        assert await whole(b"", timeout=5) == b""
        with capture_logs() as logs:
            calls = [
                whole(broken, timeout=5),
                channel.unary_stream(f"/{name}/WatchJob")(broken, timeout=5).read(),
                channel.stream_unary(f"/{name}/Submit")(iter((b"", broken)), timeout=5),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "no message of this method" in (caught.value.details() or "")
    assert {each["log_level"] for each in logs} <= {"debug", "info"}
    await server.stop()
