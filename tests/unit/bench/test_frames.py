"""The load of prepared HTTP/2 frames, against gRPC's own server."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from callers import LATE, OK, REFUSED, Target
from echo_server import server
from frames import Frames
from load import Answers


async def sent(load: Frames) -> Answers:
    """Run `load` beside this loop, where the server is."""
    return await asyncio.to_thread(asyncio.run, load.run())


async def test_each_message_arrives_whole() -> None:
    requests = [b"%d" % number for number in range(20)]
    async with server() as echo:
        answers = await sent(Frames(echo.target, requests, 10, arrivals=[0.001] * 20))
    assert sorted(echo.seen) == sorted(requests)
    assert answers.status == [OK] * 20


async def test_calls_beyond_the_connections_window_wait_for_it() -> None:
    requests = [bytes([number]) * 30_000 for number in range(20)]
    async with server() as echo:
        answers = await sent(Frames(echo.target, requests, 20, arrivals=[0.0] * 20))
    assert sorted(echo.seen) == sorted(requests)
    assert answers.status == [OK] * 20


async def test_refusals_keep_their_status() -> None:
    async with server(grpc.StatusCode.RESOURCE_EXHAUSTED) as echo:
        answers = await sent(Frames(echo.target, [b"x"], 10, arrivals=[0.0, 0.01, 0.02]))
    assert answers.status == [REFUSED] * 3


async def test_a_call_is_cancelled_at_its_deadline() -> None:
    async with server() as echo:
        echo.released.clear()
        answers = await sent(Frames(echo.target, [b"x"], 0.2, arrivals=[0.0, 0.0]))
        while echo.running:
            await asyncio.sleep(0.01)
    assert answers.status == [LATE] * 2


async def test_clients_have_one_call_each_in_flight() -> None:
    async with server() as echo:
        answers = await sent(Frames(echo.target, [b"x"], 10, clients=3, seconds=0.2))
    assert echo.most <= 3
    assert len(answers.status) == len(echo.seen) > 3
    assert set(answers.status) == {OK}


def test_a_request_larger_than_a_window_is_refused() -> None:
    load = Frames(Target("grpc", 1, "/none"), [b"x" * 70_000], 1, arrivals=[0.0])
    with pytest.raises(ValueError, match="the limit is 65535"):
        asyncio.run(load.run())
