"""A Redis that refuses, hangs, forgets or rejects us costs five calls a moment, no more."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import structlog
from pydantic import SecretStr
from raglan.errors import Unavailable
from raglan.resilience.breaker import State
from raglan_gateway.shared import redis_link
from raglan_gateway.shared.redis_link import CALL_S, CONNECTIONS, RedisLink

if TYPE_CHECKING:
    from conftest import RedisServer

ECHO = "return ARGV[1]"
NOISE_S = 0.1
"""What a busy machine may add to a measured time."""

LIMIT_S = 30.0

HUNG_S = 10.0
"""A server that does not answer holds a call for ever; so long is no matter of speed."""

PATIENT_S = 2.0
"""Limit of a call where a test is not about the limit."""

LATE_S = redis_link._LATE_S

AWAY: dict[str, Callable[[RedisServer], None]] = {
    "killed": lambda server: server.kill(),
    "stopped": lambda server: server.stop(),
}


@pytest.fixture(autouse=True)
def no_limit_is_noticed_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine every limit may be, and Redis would never count as away."""
    monkeypatch.setattr(redis_link, "_LATE_S", 2 * HUNG_S)


async def repaired(server: RedisServer, fault: str) -> None:
    if fault == "killed":
        await server.start_again()
    else:
        server.go_on()


@dataclass(frozen=True)
class Outcome:
    answered: bool
    took_s: float
    why: str = ""


async def call(link: RedisLink) -> Outcome:
    begun = time.monotonic()
    try:
        assert await link.run(ECHO, [], b"hello") == b"hello"
    except Unavailable as error:
        return Outcome(False, time.monotonic() - begun, error.message)
    return Outcome(True, time.monotonic() - begun)


async def load(link: RedisLink, *, calls: int, per_second: float) -> list[Outcome]:
    """An open loop: calls begin on time, whatever became of those before."""
    tasks = []
    for _ in range(calls):
        tasks.append(asyncio.create_task(call(link)))
        await asyncio.sleep(1 / per_second)
    return await asyncio.gather(*tasks)


def tried(outcomes: list[Outcome]) -> list[Outcome]:
    """Those that went to Redis."""
    return [o for o in outcomes if o.answered or o.why != "Redis is not used for the moment."]


async def given_up(link: RedisLink, *, calling: bool = True) -> None:
    async with asyncio.timeout(LIMIT_S):
        while link.state is State.CLOSED:
            if calling:
                await call(link)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def linked(url: SecretStr, *, call_s: float = CALL_S) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, call_s=call_s)
    try:
        yield link
    finally:
        await link.close()


async def test_a_script_runs_with_its_keys_and_arguments(redis_server: RedisServer) -> None:
    async with linked(redis_server.url, call_s=PATIENT_S) as link:
        assert await link.run("return {KEYS[1], ARGV[1], 7}", ["a"], b"\x00\xff") == [
            b"a",
            b"\x00\xff",
            7,
        ]


@pytest.mark.parametrize("fault", AWAY)
async def test_five_calls_notice_that_it_is_away_and_the_rest_are_free(
    redis_server: RedisServer, fault: str
) -> None:
    async with linked(redis_server.url) as link:
        await call(link)
        AWAY[fault](redis_server)
        outcomes = await load(link, calls=60, per_second=100)
        assert not any(o.answered for o in outcomes)
        assert 0 < len(tried(outcomes)) <= 5
        assert max(o.took_s for o in outcomes) < HUNG_S


@pytest.mark.parametrize("fault", AWAY)
async def test_it_comes_back_by_itself_and_no_call_pays_for_finding_out(
    redis_server: RedisServer, fault: str
) -> None:
    async with linked(redis_server.url) as link:
        AWAY[fault](redis_server)
        await given_up(link)
        assert tried(await load(link, calls=150, per_second=100)) == []
        await repaired(redis_server, fault)
        async with asyncio.timeout(LIMIT_S):
            await link.up()
        assert any(o.answered for o in await load(link, calls=20, per_second=100))


async def test_an_outage_is_noticed_while_nobody_calls(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_WATCH_S", 0.05)
    async with linked(redis_server.url) as link:
        redis_server.kill()
        await given_up(link, calling=False)


async def test_a_redis_that_takes_no_writes_is_away_until_it_does(
    redis_server: RedisServer,
) -> None:
    async with linked(redis_server.url, call_s=PATIENT_S) as link:
        await redis_server.do("CONFIG SET min-replicas-to-write 1")
        async with asyncio.timeout(LIMIT_S):
            while link.state is State.CLOSED:
                with suppress(Unavailable):
                    await link.run("redis.call('SET', KEYS[1], 1)", ["a"])
        assert not (await call(link)).answered
        await redis_server.do("CONFIG SET min-replicas-to-write 0")
        async with asyncio.timeout(LIMIT_S):
            await link.up()
        assert (await call(link)).answered


async def test_a_gateway_may_start_before_redis(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with linked(redis_server.url) as link:
        await given_up(link)
        await redis_server.start_again()
        async with asyncio.timeout(LIMIT_S):
            await link.up()
        assert any(o.answered for o in await load(link, calls=20, per_second=100))


async def test_no_call_fails_when_it_is_flushed_or_forgets_its_scripts(
    redis_server: RedisServer,
) -> None:
    async with linked(redis_server.url, call_s=PATIENT_S) as link:
        working = asyncio.create_task(load(link, calls=60, per_second=100))
        for command in ("FLUSHALL", "SCRIPT FLUSH", "FLUSHALL"):
            await asyncio.sleep(0.1)
            await redis_server.do(command)
        assert all(o.answered for o in await working)


async def test_connections_survive_a_restart_of_redis(
    redis_server: RedisServer,
) -> None:
    """The connections of before a restart are made anew without a failure."""
    async with linked(redis_server.url, call_s=PATIENT_S) as link:
        await load(link, calls=5, per_second=200)
        redis_server.kill()
        await redis_server.start_again()
        assert all(o.answered for o in await load(link, calls=20, per_second=100))


async def test_a_host_that_drops_every_packet_costs_no_more_than_one_that_hangs() -> None:
    with socket.socket() as full:
        # A listener whose backlog is full: the kernel answers no connection attempt any more.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with linked(SecretStr(f"redis://127.0.0.1:{port}")) as link:
            outcomes = await load(link, calls=40, per_second=100)
        for one in waiting:
            one.close()
    assert 0 < len(tried(outcomes)) <= 5
    assert max(o.took_s for o in outcomes) < HUNG_S


async def test_calls_at_the_same_time_are_bounded(redis_server: RedisServer) -> None:
    async with linked(redis_server.url) as link:
        redis_server.stop()
        outcomes = await asyncio.gather(*(call(link) for _ in range(500)))
        assert 0 < len(tried(outcomes)) <= CONNECTIONS
        redis_server.go_on()


async def test_a_wrong_password_is_named_and_never_shown(
    guarded_redis_server: RedisServer,
) -> None:
    wrong = SecretStr(f"redis://:s3cret-wrong@127.0.0.1:{guarded_redis_server.port}")
    with structlog.testing.capture_logs() as logs:
        async with linked(wrong, call_s=PATIENT_S) as link:
            outcomes = await load(link, calls=10, per_second=100)
            shown = f"{link!r} {vars(link)!r}"
    assert "RAGLAN_GATEWAY_REDIS_URL" in outcomes[0].why
    assert logs[0]["event"] == "doing without redis"
    for text in (*(o.why for o in outcomes), str(logs), shown):
        assert "s3cret" not in text


async def test_the_right_password_opens(guarded_redis_server: RedisServer) -> None:
    async with linked(guarded_redis_server.url, call_s=PATIENT_S) as link:
        assert (await call(link)).answered


async def test_a_caller_who_leaves_is_no_failure_of_redis(redis_server: RedisServer) -> None:
    async with linked(redis_server.url, call_s=PATIENT_S) as link:
        redis_server.stop()
        for _ in range(20):
            leaving = asyncio.create_task(call(link))
            await asyncio.sleep(0.005)
            leaving.cancel()
            await asyncio.wait((leaving,))
        assert link.state is State.CLOSED
        redis_server.go_on()
        async with asyncio.timeout(LIMIT_S):
            while not (await call(link)).answered:
                await asyncio.sleep(0.01)
        assert link.state is State.CLOSED


async def test_a_limit_missed_by_a_blocked_process_is_no_failure_of_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_LATE_S", LATE_S)
    async with linked(redis_server.url) as link:
        await asyncio.gather(*(call(link) for _ in range(6)))
        for _ in range(2):
            calls = [asyncio.create_task(call(link)) for _ in range(6)]
            await asyncio.sleep(0)
            time.sleep(2 * CALL_S + NOISE_S)  # noqa: ASYNC251
            await asyncio.gather(*calls)
        assert link.state is State.CLOSED


async def test_a_script_with_an_error_is_unavailable_without_quoting_it(
    redis_server: RedisServer,
) -> None:
    async with linked(redis_server.url) as link:
        with pytest.raises(Unavailable) as caught:
            await link.run("return redis.call('NOSUCH', ARGV[1])", [], b"somebody's words")
        assert "somebody" not in caught.value.message
        assert caught.value.__cause__ is None


@asynccontextmanager
async def far_away(port: int, delay_s: float) -> AsyncIterator[int]:
    """A port that leads to `port`, with replies that take `delay_s` to come."""
    pipes: set[asyncio.Task[None]] = set()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter, wait_s: float) -> None:
        try:
            while data := await source.read(65536):
                await asyncio.sleep(wait_s)
                sink.write(data)
        finally:
            sink.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near_reader, near_writer = await asyncio.open_connection("127.0.0.1", port)
        for each in (pipe(reader, near_writer, 0), pipe(near_reader, writer, delay_s)):
            pipes.add(asyncio.create_task(each))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in pipes:
        task.cancel()
    await asyncio.wait(pipes)
    await server.wait_closed()
    await asyncio.sleep(0)  # transports close in the next turn of the loop


async def test_a_redis_that_takes_several_round_trips_to_connect_is_used(
    guarded_redis_server: RedisServer,
) -> None:
    # Password, database and call take .6 s: longer than a call may, as 20 ms each are in 55.
    call_s, delay_s = 0.5, 0.2
    async with far_away(guarded_redis_server.port, delay_s) as port:
        url = SecretStr(f"redis://:right-one@127.0.0.1:{port}/1")
        async with linked(url, call_s=call_s) as link:
            async with asyncio.timeout(LIMIT_S):
                while not (await call(link)).answered:
                    await asyncio.sleep(0.05)
            assert [(await call(link)).answered for _ in range(5)] == [True] * 5
            assert link.state is State.CLOSED
            # More at once than there are connections: those that are made meanwhile are kept.
            async with asyncio.timeout(LIMIT_S):
                while not all(o.answered for o in await load(link, calls=4, per_second=1_000)):
                    await link.up()
