"""The same thing asked for by many at once is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from raglan.errors import DeadlineExceeded, Internal, Overloaded
from raglan.single_flight import SingleFlight


class Work:
    """Hands out futures that the test settles, by key."""

    def __init__(self) -> None:
        self.landed: dict[bytes, str] = {}
        self.flights: SingleFlight[str] = SingleFlight(self.landed.__setitem__)
        self.futures: dict[bytes, list[asyncio.Future[str]]] = {}

    def ask(self, keys: Sequence[bytes], *, rank: int = 0) -> asyncio.Task[list[str]]:
        def start(positions: list[int]) -> list[asyncio.Future[str]]:
            made = [asyncio.get_running_loop().create_future() for _ in positions]
            for at, future in zip(positions, made, strict=True):
                self.futures.setdefault(keys[at], []).append(future)
            return made

        return asyncio.create_task(self.flights.get(keys, start, rank=rank))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def work() -> Work:
    return Work()


async def test_two_that_ask_for_the_same_share_one_computation(work: Work) -> None:
    first, second = work.ask([b"a"]), work.ask([b"a"])
    await settled()
    assert [len(made) for made in work.futures.values()] == [1]
    work.futures[b"a"][0].set_result("A")
    assert await first == await second == ["A"]
    assert work.landed == {b"a": "A"}
    assert len(work.flights) == 0


async def test_a_key_asked_for_twice_in_one_call_is_computed_once(work: Work) -> None:
    asked = work.ask([b"a", b"b", b"a"])
    await settled()
    work.futures[b"b"][0].set_result("B")
    work.futures[b"a"][0].set_result("A")
    assert await asked == ["A", "B", "A"]
    assert [len(made) for made in work.futures.values()] == [1, 1]


async def test_a_cancelled_leader_leaves_its_followers_waiting(work: Work) -> None:
    leader, follower = work.ask([b"a"]), work.ask([b"a"])
    await settled()
    leader.cancel()
    await settled()
    assert leader.cancelled()
    work.futures[b"a"][0].set_result("A")
    assert await follower == ["A"]
    assert len(work.futures[b"a"]) == 1


async def test_when_the_last_one_leaves_the_work_is_cancelled(work: Work) -> None:
    leader, follower = work.ask([b"a", b"b"]), work.ask([b"a"])
    await settled()
    leader.cancel()
    await settled()
    assert work.futures[b"b"][0].cancelled()
    assert not work.futures[b"a"][0].done()
    follower.cancel()
    await settled()
    assert work.futures[b"a"][0].cancelled()
    again = work.ask([b"a"])
    await settled()
    work.futures[b"a"][1].set_result("again")
    assert await again == ["again"]


async def test_a_follower_outlives_its_leaders_deadline(work: Work) -> None:
    leader, follower = work.ask([b"a"]), work.ask([b"a", b"b"])
    await settled()
    work.futures[b"a"][0].set_exception(DeadlineExceeded("too late"))
    with pytest.raises(DeadlineExceeded):
        await leader
    await settled()
    work.futures[b"a"][1].set_result("A")
    work.futures[b"b"][-1].set_result("B")
    assert await follower == ["A", "B"]


async def test_other_failures_are_everyones(work: Work) -> None:
    asked = [work.ask([b"a"]), work.ask([b"a"])]
    await settled()
    work.futures[b"a"][0].set_exception(Internal("broken"))
    for each in asked:
        with pytest.raises(Internal):
            await each
    assert work.landed == {}
    assert len(work.flights) == 0


async def test_one_failure_cancels_the_rest_of_the_call(work: Work) -> None:
    asked = work.ask([b"a", b"b"])
    await settled()
    work.futures[b"a"][0].set_exception(Internal("broken"))
    with pytest.raises(Internal):
        await asked
    await settled()
    assert work.futures[b"b"][0].cancelled()


async def test_a_refused_start_leaves_nothing_behind(work: Work) -> None:
    def refuse(positions: list[int]) -> list[asyncio.Future[str]]:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await work.flights.get([b"a"], refuse)
    assert len(work.flights) == 0
    asked = work.ask([b"a"])
    await settled()
    work.futures[b"a"][0].set_result("A")
    assert await asked == ["A"]


async def test_the_more_urgent_does_not_wait_for_the_less_urgent(work: Work) -> None:
    bulk = work.ask([b"a", b"b"], rank=1)
    await settled()
    query, later = work.ask([b"a"], rank=0), work.ask([b"a"], rank=1)
    await settled()
    assert len(work.futures[b"a"]) == 2, "a computation of its own, that others join"
    work.futures[b"a"][1].set_result("A")
    assert await query == await later == ["A"]
    assert work.futures[b"a"][0].result() == "A", "the other need not run any more"
    work.futures[b"b"][0].set_result("B")
    assert await bulk == ["A", "B"]
    assert len(work.flights) == 0


async def test_whichever_lands_first_lands_for_both(work: Work) -> None:
    bulk = work.ask([b"a"], rank=1)
    await settled()
    query = work.ask([b"a"], rank=0)
    await settled()
    work.futures[b"a"][0].set_result("A")
    assert await query == await bulk == ["A"]
    assert work.landed == {b"a": "A"}


async def test_the_less_urgent_joins_the_more_urgent(work: Work) -> None:
    query, bulk = work.ask([b"a"], rank=0), work.ask([b"a"], rank=1)
    await settled()
    assert len(work.futures[b"a"]) == 1
    work.futures[b"a"][0].set_result("A")
    assert await query == await bulk == ["A"]


async def test_when_the_more_urgent_leaves_the_other_goes_on_and_is_joined(work: Work) -> None:
    bulk = work.ask([b"a"], rank=1)
    await settled()
    query = work.ask([b"a"], rank=0)
    await settled()
    query.cancel()
    await settled()
    later = work.ask([b"a"], rank=1)
    await settled()
    assert [made.cancelled() for made in work.futures[b"a"]] == [False, True]
    work.futures[b"a"][0].set_result("A")
    assert await bulk == await later == ["A"]
