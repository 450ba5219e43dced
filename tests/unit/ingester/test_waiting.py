"""OutageRetry with services that are away, and the byte_budget that bounds what is under way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import InvalidInput, Unavailable
from raglan_ingester.byte_budget import ByteBudget
from raglan_ingester.outage_retry import UNSEEN_S, OutageRetry


class Callee:
    """Fails with each of `errors` in turn, then answers; each call takes `call_s` of its clock."""

    def __init__(self, *errors: Exception, call_s: float = 0.0) -> None:
        self.errors = list(errors)
        self.call_s = call_s
        self.calls = 0
        self.now = 0.0

    async def answer(self) -> str:
        self.calls += 1
        self.now += self.call_s
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_a_call_that_fails_for_a_while_is_repeated() -> None:
    callee = Callee(Unavailable("Down."), Unavailable("Down."))

    assert await OutageRetry(60).call(callee.answer) == "answer"
    assert callee.calls == 3


async def test_an_error_that_no_repeat_can_mend_is_raised_at_once() -> None:
    callee = Callee(InvalidInput("Wrong."))

    with pytest.raises(InvalidInput):
        await OutageRetry(60).call(callee.answer)
    assert callee.calls == 1


async def test_once_the_callee_was_away_too_long_each_call_tries_only_once() -> None:
    callee = Callee(*[Unavailable("Down.")] * 9, call_s=10)
    retry = OutageRetry(15, clock=lambda: callee.now)
    with pytest.raises(Unavailable):
        await retry.call(callee.answer)
    calls = callee.calls

    with pytest.raises(Unavailable):
        await retry.call(callee.answer)

    assert callee.calls == calls + 1


async def test_the_cancellation_of_the_only_caller_winds_the_clock_back() -> None:
    callee = Callee(*[Unavailable("Down.")] * 3, call_s=10)
    retry = OutageRetry(25, clock=lambda: callee.now)
    waiting = asyncio.create_task(retry.call(callee.answer))
    while callee.calls < 2:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    callee.now += 20

    assert await retry.call(callee.answer) == "answer"


async def test_time_in_which_nobody_asked_does_not_count() -> None:
    callee = Callee(*[Unavailable("Down.")] * 3, call_s=10)
    retry = OutageRetry(5, clock=lambda: callee.now)
    with pytest.raises(Unavailable):
        await retry.call(callee.answer)
    calls = callee.calls
    callee.now += UNSEEN_S

    with suppress(Unavailable):
        await retry.call(callee.answer)
    assert callee.calls > calls + 1


async def test_a_success_winds_the_clock_back() -> None:
    callee = Callee(Unavailable("Down."), call_s=10)
    retry = OutageRetry(15, clock=lambda: callee.now)
    await retry.call(callee.answer)
    callee.errors = [Unavailable("Down.")]

    assert await retry.call(callee.answer) == "answer"


@given(st.lists(st.integers(1, 12), max_size=30))
def test_never_more_is_lent_than_there_is_and_everyone_gets_a_turn(amounts: list[int]) -> None:
    async def scenario() -> None:
        byte_budget = ByteBudget(10)
        lent, most, served = 0, 0, 0

        async def borrow(amount: int) -> None:
            nonlocal lent, most, served
            taken = await byte_budget.acquire(amount)
            lent += taken
            most = max(most, lent)
            await asyncio.sleep(0)
            lent -= taken
            served += 1
            byte_budget.release(taken)

        await asyncio.gather(*(borrow(amount) for amount in amounts))
        assert served == len(amounts)
        assert most <= 10

    asyncio.run(scenario())


async def test_a_cancelled_borrower_gives_its_turn_to_the_next() -> None:
    byte_budget = ByteBudget(1)
    await byte_budget.acquire(1)
    first, second = (asyncio.create_task(byte_budget.acquire(1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    byte_budget.release(1)

    assert await asyncio.wait_for(second, 1) == 1
