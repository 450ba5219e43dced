"""The load generator: what it sends, when, and how it counts."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import grpc
import pytest
from callers import LATE, OK, REFUSED, Target
from echo_server import server
from load import Answers, Closed, Open, percentile, poisson


async def test_a_closed_loop_sends_each_request_once() -> None:
    requests = [b"%d" % number for number in range(50)]
    async with server() as echo:
        answers = await Closed(echo.target, requests, clients=4).run()
    assert sorted(echo.seen) == sorted(requests)
    assert answers.status == [OK] * 50


async def test_a_closed_loop_has_no_more_calls_in_flight_than_clients() -> None:
    async with server() as echo:
        await Closed(echo.target, [b"x"] * 40, clients=3).run()
    assert echo.most <= 3


async def test_an_open_loop_sends_whether_or_not_answers_come() -> None:
    async with server() as echo:
        echo.released.clear()
        answers = await Open(echo.target, [b"x"], [0.0, 0.01, 0.02], timeout_s=0.3).run()
    assert echo.most == 3
    assert answers.status == [LATE] * 3


async def test_a_refusal_is_counted_as_one() -> None:
    async with server(grpc.StatusCode.RESOURCE_EXHAUSTED) as echo:
        answers = await Open(echo.target, [b"x"], [0.0, 0.0], timeout_s=5).run()
    assert answers.count(REFUSED) == 2
    assert len(answers.took_ms(REFUSED)) == 2
    assert answers.took_ms() == []


async def test_http_answers_are_read_to_their_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            bodies.append(body)
            code = b"200 OK" if body == b"good" else b"429 Too Many Requests"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 3\r\n\r\nyes" % code)
        writer.close()

    bodies: list[bytes] = []
    http = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with http:
        target = Target("http", http.sockets[0].getsockname()[1], "/embeddings")
        answers = await Closed(target, [b"good", b"bad"], clients=1).run()
    assert bodies == [b"good", b"bad"]
    assert answers.status == [OK, "429"]


def test_goodput_counts_what_was_answered_in_time_within_the_window() -> None:
    answers = Answers(
        due=[0.0, 1.0, 1.0, 1.5, 1.5],
        sent=[0.0, 1.0, 1.0, 1.5, 1.5],
        began=[0.2, 1.2, 1.9, 1.9, 1.6],
        done=[0.2, 1.2, 1.9, 1.9, 1.6],
        status=[OK, OK, OK, OK, REFUSED],
    )
    # The first came before the window, the third took 0.9 s, the last was refused.
    assert answers.goodput(1.0, 3.0, deadline_s=0.5) == 2 / 2.0


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (0, 1)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    percent: float, value: int
) -> None:
    assert percentile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], percent) == value


def test_poisson_arrivals_have_their_rate_and_spread() -> None:
    arrivals = poisson(100, 50, seed=1)
    gaps = [after - before for before, after in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    assert arrivals == sorted(arrivals)
    assert mean == pytest.approx(0.01, rel=0.05)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance == pytest.approx(mean**2, rel=0.15)
