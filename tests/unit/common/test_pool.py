"""What a pool promises, over real servers on loopback that behave as told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from raglan import errors, logs
from raglan.deadline import Deadline
from raglan.resilience.breaker import State
from raglan.rpc import addresses
from raglan.rpc.endpoint import Reach
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc

INFO = common_pb2.GetInfoRequest()
ASK = generator_pb2.GenerateRequest(question="?")


class Replica(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers with its name, unless told otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.error: Exception | None = None
        self.delay_s = 0.0
        self.cut_after: int | None = None
        self.cancelled = asyncio.Event()

    async def GetInfo(self, request: Any, context: Any) -> common_pb2.ServiceInfo:
        self.calls += 1
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return common_pb2.ServiceInfo(service=self.name)

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        if self.error and self.cut_after is None:
            raise self.error
        for number in range(5):
            if number == self.cut_after and self.error:
                raise self.error
            if number == self.cut_after:
                await asyncio.sleep(60)
            yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=f"{number}"))


class Mesh:
    """Replicas, and one pool over all of them."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.servers: list[Server] = []
        self.kinds: list[str] = []
        self.pool: EndpointPool

    async def add(self) -> Replica:
        replica = Replica(f"r{len(self.replicas)}")
        service = Service(
            name="raglan.v1.GeneratorService",
            register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(
                replica, s
            ),
        )
        server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
        await server.start()
        self.replicas.append(replica)
        self.servers.append(server)
        return replica

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{server.port}" for server in self.servers]

    def open(self, addresses: str = "") -> None:
        self.pool = EndpointPool(
            "generator",
            addresses or ",".join(self.addresses),
            generator_pb2_grpc.GeneratorServiceStub,
            on_attempt=self.kinds.append,
        )

    async def ask(self, *, timeout_s: float = 5, is_budget: bool = False, **options: Any) -> str:
        deadline = Deadline.after(timeout_s, is_budget=is_budget)
        reply = await self.pool.call("GetInfo", INFO, deadline=deadline, **options)
        return str(reply.service)

    async def read(self, *, timeout_s: float = 5, **options: Any) -> list[str]:
        found = []
        deadline = Deadline.after(timeout_s)
        replies = self.pool.stream("Generate", ASK, deadline=deadline, **options)
        async with aclosing(replies):
            async for reply in replies:
                found.append(reply.delta.text)
        return found

    async def stop(self, number: int) -> None:
        await self.servers[number].stop()

    def endpoint(self, number: int) -> Any:
        address = self.addresses[number]
        return next(each for each in self.pool.replicas.all if each.address == address)


@asynccontextmanager
async def mesh_of(count: int) -> AsyncIterator[Mesh]:
    mesh = Mesh()
    for _ in range(count):
        await mesh.add()
    mesh.open()
    try:
        await until(lambda: all(e.reach is Reach.SERVING for e in mesh.pool.replicas.all))
        yield mesh
    finally:
        await mesh.pool.close()
        for server in mesh.servers:
            await server.stop()


async def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_calls_are_spread_over_all_replicas() -> None:
    async with mesh_of(3) as mesh:
        for _ in range(60):
            await mesh.ask()
        assert min(replica.calls for replica in mesh.replicas) >= 5


async def test_a_busy_replica_is_passed_over() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].delay_s = 60
        slow = [asyncio.create_task(mesh.ask(timeout_s=60)) for _ in range(4)]
        await until(lambda: mesh.replicas[0].calls > 0)
        before = mesh.replicas[1].calls
        for _ in range(20):
            await mesh.ask()
        assert mesh.replicas[1].calls - before >= 18
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)


async def test_what_one_replica_could_not_do_another_is_asked() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].error = errors.Unavailable("gone")
        assert [await mesh.ask() for _ in range(4)] == ["r1"] * 4


async def test_a_dead_replica_costs_no_call() -> None:
    async with mesh_of(2) as mesh:
        await mesh.stop(0)
        assert [await mesh.ask() for _ in range(10)] == ["r1"] * 10


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInput("no"),
        errors.NotFound("no"),
        errors.Internal("no"),
        errors.Overloaded("no"),
    ],
)
async def test_other_errors_are_not_tried_again(error: errors.RaglanError) -> None:
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.error = error
        with pytest.raises(type(error)):
            await mesh.ask()
        assert sum(replica.calls for replica in mesh.replicas) == 1


async def test_a_replica_that_names_a_time_is_overloaded_and_another_is_asked() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].error = errors.Overloaded("full", retry_after_s=30)
        assert [await mesh.ask() for _ in range(6)] == ["r1"] * 6
        assert mesh.endpoint(0).breaker.failures == 0


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Overloaded])
async def test_what_all_replicas_depend_on_is_not_asked_for_again(kind: type[Any]) -> None:
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.error = kind("the upstream is full", retry_after_s=0.01, is_final=True)
        for asked in (mesh.ask, mesh.read):
            with pytest.raises(kind) as caught:
                await asked()
            assert caught.value.is_final
        assert sum(replica.calls for replica in mesh.replicas) == 2


async def test_changes_are_not_tried_again() -> None:
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.error = errors.Unavailable("gone")
        with pytest.raises(errors.Unavailable):
            await mesh.ask(retry=False)
        assert sum(replica.calls for replica in mesh.replicas) == 1


async def test_retries_stay_within_their_budget_when_everything_fails() -> None:
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.error = errors.Unavailable("gone")
        for _ in range(400):
            with pytest.raises(errors.Unavailable):
                await mesh.ask()
        # 10 % of the requests; no less than three a second over ten seconds.
        assert mesh.kinds.count("retry") <= 40


async def test_a_retry_never_begins_past_the_deadline() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].error = errors.Overloaded("full", retry_after_s=60)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(errors.Overloaded):
            await mesh.ask(timeout_s=30)
        assert asyncio.get_running_loop().time() - begun < 30
        assert mesh.replicas[0].calls == 1


async def test_who_is_far_slower_than_the_others_is_hardly_asked() -> None:
    """Power of two choices on work in hand alone would give it a thirtieth of the calls."""
    async with mesh_of(2) as mesh:
        mesh.replicas[0].delay_s, mesh.replicas[1].delay_s = 0.6, 0.02

        async def caller() -> None:
            for _ in range(60):
                await mesh.ask()

        await asyncio.gather(*(caller() for _ in range(6)))
        assert mesh.replicas[0].calls <= 8, "those that were on their way before the first answer"
        assert sum(replica.calls for replica in mesh.replicas) == 360


async def test_failures_eject_a_replica_and_it_draws_no_traffic_for_being_idle() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].error = errors.Internal("broken")
        failed = 0
        for _ in range(60):
            try:
                await mesh.ask()
            except errors.Internal:
                failed += 1
        assert failed <= 5
        for _ in range(20):
            await mesh.ask()


async def test_bad_requests_and_callers_that_leave_open_no_breaker() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].error = errors.InvalidInput("no")
        for _ in range(30):
            with pytest.raises(errors.InvalidInput):
                await mesh.ask()
        mesh.replicas[0].error, mesh.replicas[0].delay_s = None, 5
        leaving = [asyncio.create_task(mesh.ask()) for _ in range(30)]
        await until(lambda: mesh.replicas[0].calls >= 60)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        assert mesh.endpoint(0).breaker.state is State.CLOSED
        assert mesh.endpoint(0).in_flight == 0


@pytest.mark.parametrize("answered", [0, 30], ids=["cold", "warm"])
async def test_a_callers_own_deadline_opens_no_breaker(answered: int) -> None:
    async with mesh_of(1) as mesh:
        for _ in range(answered):
            await mesh.ask()
        mesh.replicas[0].delay_s = 60
        for _ in range(8):
            with pytest.raises(errors.DeadlineExceeded):
                await mesh.ask(timeout_s=0.05)
        assert mesh.endpoint(0).breaker.failures == 0


@pytest.mark.parametrize("replies", [0, 2], ids=["before the first reply", "in the middle"])
async def test_a_callers_own_deadline_of_a_stream_opens_no_breaker(replies: int) -> None:
    async with mesh_of(1) as mesh:
        for _ in range(30):
            await mesh.read()
        mesh.replicas[0].cut_after = replies
        for _ in range(8):
            with pytest.raises(errors.DeadlineExceeded):
                await mesh.read(timeout_s=0.1, gap_s=30)
        assert mesh.endpoint(0).breaker.failures == 0


async def test_deadlines_that_pass_at_any_point_of_a_call_open_no_breaker() -> None:
    """Client and server race for the last word: no status that this ends in may count."""
    async with mesh_of(1) as mesh:
        mesh.replicas[0].delay_s = 0.004
        asked = [mesh.ask(timeout_s=number / 1e4) for number in range(200)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        read = [mesh.read(timeout_s=number / 1e4) for number in range(200)]
        outcomes += await asyncio.gather(*read, return_exceptions=True)
        missed = [outcome for outcome in outcomes if isinstance(outcome, errors.RaglanError)]
        assert {type(error) for error in missed} == {errors.DeadlineExceeded}
        assert mesh.endpoint(0).breaker.failures == 0


@pytest.mark.slow
async def test_a_missed_budget_counts_once_it_is_known_to_suffice() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].delay_s = 60
        for _ in range(8):
            with pytest.raises(errors.DeadlineExceeded):
                await mesh.ask(timeout_s=0.05, is_budget=True)
        assert mesh.endpoint(0).breaker.failures == 0, "nothing is known of a cold pool"
        mesh.replicas[0].delay_s = 0
        for _ in range(30):
            await mesh.ask()
        mesh.replicas[0].delay_s = 60
        for _ in range(5):
            with pytest.raises(errors.DeadlineExceeded):
                await mesh.ask(timeout_s=1, is_budget=True)
        assert mesh.endpoint(0).ejected


async def test_callers_in_a_hurry_make_nothing_look_fast() -> None:
    """Their times, cut short, would have calls hedged that take what calls always took."""
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.delay_s = 2
        await asyncio.gather(*(mesh.ask(hedge=True) for _ in range(40)))
        hurried = (mesh.ask(timeout_s=0.001) for _ in range(600))
        await asyncio.gather(*hurried, return_exceptions=True)
        for replica in mesh.replicas:
            replica.delay_s = 0.1
        await mesh.ask(hedge=True)
        assert "hedge" not in mesh.kinds


async def test_when_more_than_half_fails_all_are_asked_again() -> None:
    async with mesh_of(2) as mesh:
        for replica in mesh.replicas:
            replica.error = errors.Internal("broken")
        for _ in range(30):
            with pytest.raises(errors.Internal):
                await mesh.ask()
        assert all(endpoint.ejected for endpoint in mesh.pool.replicas.all)
        for replica in mesh.replicas:
            replica.error = None
        assert await mesh.ask() in {"r0", "r1"}


@pytest.mark.slow
async def test_in_panic_the_replica_that_still_works_is_not_given_everything() -> None:
    async with mesh_of(4) as mesh:
        broken = mesh.replicas[:3]
        for replica in broken:
            replica.error = errors.Internal("broken")
        while not all(mesh.endpoint(number).ejected for number in range(3)):
            for _ in range(10):
                with suppress(errors.Internal):
                    await mesh.ask()
        before = [replica.calls for replica in mesh.replicas]
        for _ in range(300):
            with suppress(errors.Internal):
                await mesh.ask()
        asked = [r.calls - then for r, then in zip(mesh.replicas, before, strict=True)]
        assert min(asked) > 30, asked
        assert max(asked) < 130, asked
        for replica in broken:
            replica.error = None
        for _ in range(60):
            await mesh.ask()
        is_panic = mesh.pool.replicas.candidates()[1]
        assert not is_panic, "half of the pool has proven itself"


async def test_probes_in_flight_do_not_keep_a_whole_pool_from_callers() -> None:
    async with mesh_of(2) as mesh:
        for endpoint in mesh.pool.replicas.all:
            endpoint.breaker._become(State.HALF_OPEN)
        for replica in mesh.replicas:
            replica.delay_s = 0.3
        await asyncio.gather(*(mesh.ask() for _ in range(20)))


async def test_the_last_replica_alive_is_asked_again_when_it_said() -> None:
    async with mesh_of(2) as mesh:
        await mesh.stop(0)
        await until(lambda: mesh.endpoint(0).reach is not Reach.SERVING)
        mesh.replicas[1].error = errors.Overloaded("full", retry_after_s=30)
        with pytest.raises(errors.Overloaded):
            await mesh.ask()
        assert mesh.replicas[1].calls == 1, "again before its 30 s, for nobody else is there"


async def test_what_an_earlier_version_does_not_know_another_replica_is_asked() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].error = errors.NotSupported("of an earlier version")
        assert [await mesh.ask() for _ in range(10)] == ["r1"] * 10
        mesh.replicas[1].error = mesh.replicas[0].error
        before = sum(replica.calls for replica in mesh.replicas)
        with pytest.raises(errors.NotSupported):
            await mesh.ask()
        assert sum(replica.calls for replica in mesh.replicas) == before + 2
        assert all(each.breaker.failures == 0 for each in mesh.pool.replicas.all)


async def test_calls_that_no_replica_knows_open_no_breaker() -> None:
    """As gRPC answers them, without a word of ours."""
    async with mesh_of(1) as mesh:
        stub = mesh.endpoint(0).stub
        stub.Generate = mesh.endpoint(0).channel.unary_stream(
            "/raglan.v1.GeneratorService/OfALaterVersion",
            request_serializer=generator_pb2.GenerateRequest.SerializeToString,
            response_deserializer=generator_pb2.GenerateEvent.FromString,
        )
        for _ in range(8):
            with pytest.raises(errors.NotSupported):
                await mesh.read()
        assert mesh.endpoint(0).breaker.failures == 0
        assert await mesh.ask() == "r0"


async def test_a_pool_of_one_rests_after_failures_and_says_for_how_long() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].error = errors.Internal("broken")
        for _ in range(5):
            with pytest.raises(errors.Internal):
                await mesh.ask()
        with pytest.raises(errors.Unavailable, match="left alone") as caught:
            await mesh.ask()
        assert 0 < (caught.value.retry_after_s or 0) <= 5
        assert mesh.replicas[0].calls == 5


async def test_a_slow_call_is_hedged_and_the_slower_one_cancelled() -> None:
    async with mesh_of(2) as mesh:
        for _ in range(200):
            await mesh.ask(hedge=True)
        mesh.replicas[0].delay_s = 60
        mesh.kinds.clear()
        while "hedge" not in mesh.kinds:
            assert await mesh.ask(hedge=True, timeout_s=30) == "r1"
        await asyncio.wait_for(mesh.replicas[0].cancelled.wait(), 30)
        assert mesh.endpoint(0).breaker.failures == 1
        assert mesh.endpoint(0).in_flight == 0


async def test_hedges_are_at_most_a_twentieth_of_the_calls() -> None:
    async with mesh_of(2) as mesh:
        for _ in range(100):
            await mesh.ask(hedge=True)
        for replica in mesh.replicas:
            replica.delay_s = 0.03
        await asyncio.gather(*(mesh.ask(hedge=True) for _ in range(100)))
        assert mesh.kinds.count("hedge") <= 10
        assert all(endpoint.breaker.state is State.CLOSED for endpoint in mesh.pool.replicas.all)


async def test_a_stream_is_retried_before_its_first_reply_only() -> None:
    async with mesh_of(2) as mesh:
        mesh.replicas[0].error = errors.Unavailable("gone")
        assert [await mesh.read() for _ in range(3)] == [list("01234")] * 3
        for replica in mesh.replicas:
            replica.error, replica.cut_after = errors.Unavailable("gone"), 2
        calls = sum(replica.calls for replica in mesh.replicas)
        with pytest.raises(errors.Unavailable):
            await mesh.read()
        assert sum(replica.calls for replica in mesh.replicas) == calls + 1


async def test_a_stream_that_falls_silent_ends_in_an_error() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].cut_after = 3
        with pytest.raises(errors.DeadlineExceeded, match="fell silent"):
            await mesh.read(gap_s=0.2)
        assert mesh.endpoint(0).in_flight == 0


async def test_a_stream_that_does_not_begin_ends_in_an_error() -> None:
    async with mesh_of(1) as mesh:
        mesh.replicas[0].cut_after = 0
        with pytest.raises(errors.DeadlineExceeded, match="did not begin"):
            await mesh.read(first_by=Deadline.after(0.2))


async def test_a_replica_that_starts_late_is_used() -> None:
    async with mesh_of(1) as mesh:
        await mesh.add()
        await mesh.pool.close()
        await mesh.stop(1)
        mesh.open()
        assert await mesh.ask() == "r0"
        port = mesh.servers[1].port
        service = Service(
            name="raglan.v1.GeneratorService",
            register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(
                mesh.replicas[1], s
            ),
        )
        mesh.servers[1] = Server(
            service, GrpcSettings(port=port, shutdown_drain_s=0, shutdown_grace_s=0)
        )
        await mesh.servers[1].start()
        await until(lambda: mesh.endpoint(1).reach is Reach.SERVING)


@pytest.mark.slow
async def test_replicas_come_and_go_with_the_file_that_lists_them(tmp_path: Path) -> None:
    mesh = Mesh()
    await mesh.add()
    await mesh.add()
    listed = tmp_path / "generators"
    listed.write_text(f"# one\n{mesh.addresses[0]}\n")
    mesh.open(f"@{listed}")
    assert await mesh.ask() == "r0"
    listed.write_text("\n".join(mesh.addresses))
    await until(lambda: len(mesh.pool.replicas.all) == 2)
    listed.write_text("not an address")
    await asyncio.sleep(addresses.FILE_EVERY_S + 0.2)
    assert len(mesh.pool.replicas.all) == 2
    listed.write_text(mesh.addresses[1])
    await until(lambda: [e.address for e in mesh.pool.replicas.all] == mesh.addresses[1:])
    assert await mesh.ask() == "r1"
    await mesh.pool.close()
    for server in mesh.servers:
        await server.stop()


async def test_a_name_stands_for_all_of_its_addresses() -> None:
    mesh = Mesh()
    await mesh.add()
    mesh.open(f"localhost:{mesh.servers[0].port}")
    assert await mesh.ask() == "r0"
    await mesh.pool.close()
    await mesh.servers[0].stop()


async def test_nobody_there_is_said_at_once() -> None:
    mesh = Mesh()
    mesh.open("127.0.0.1:1")
    with pytest.raises(errors.Unavailable, match=r"The generator cannot be reached\."):
        await mesh.ask()
    begun = asyncio.get_running_loop().time()
    with pytest.raises(errors.Unavailable):
        await mesh.ask()
    assert asyncio.get_running_loop().time() - begun < 0.05
    await mesh.pool.close()


@pytest.mark.parametrize(
    "text", ["", " , ", "embedder", "embedder:", "embedder:0", "a:99999", ":1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        addresses.Addresses.parse(text)


async def test_a_replica_is_followed_although_no_line_can_be_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its watcher logs each change; a full disk must not end it."""
    with open("/dev/full", "w") as full:  # noqa: ASYNC230, PTH123
        monkeypatch.setattr(sys, "stderr", full)
        lines = logs._JsonLines("gateway")
        structlog.configure(processors=[lines], logger_factory=lines.logger)
        try:
            async with mesh_of(1) as mesh:
                assert await mesh.ask() == "r0"
                await mesh.stop(0)
                await until(lambda: mesh.endpoint(0).reach is Reach.UNREACHABLE)
                assert not mesh.endpoint(0)._watching.done()
        finally:
            structlog.reset_defaults()
