"""The limit of a caller in one gateway, against every pattern of arrivals that comes to mind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import Overloaded
from raglan_gateway.admission.rate_limit import LocalCount, RateLimit, caller_of

CALLER = b"somebody"
LIMITS = st.integers(1, 100_000)
PAUSES = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 90)), min_size=1, max_size=200
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def passes(pauses: list[float], limit: int) -> list[float]:
    """When requests passed, of some that came `pauses` apart."""
    clock = Clock()
    count = LocalCount(limit, clock=clock)
    passed = []
    for pause in pauses:
        clock.now += pause
        if count.wait_s(CALLER) == 0:
            count.passed(CALLER)
            passed.append(clock.now)
    return passed


@given(pauses=PAUSES, limit=st.integers(1, 60))
def test_no_window_admits_more_than_a_minutes_worth_and_its_refill(
    pauses: list[float], limit: int
) -> None:
    """No stretch of time sees more than a minutes worth and what came due."""
    passed = passes(pauses, limit)
    for i, begin in enumerate(passed):
        for j in range(i, len(passed)):
            most = limit * (1 + (passed[j] - begin) / 60)
            assert j - i + 1 <= most + 1e-3


@given(limit=st.integers(1, 2_000))
def test_after_a_pause_exactly_a_minutes_worth_may_come_at_once(limit: int) -> None:
    assert len(passes([0.0] * (limit + 10), limit)) == limit


@given(pauses=PAUSES, limit=LIMITS)
def test_the_wait_is_exact(pauses: list[float], limit: int) -> None:
    clock = Clock()
    count = LocalCount(limit, clock=clock)
    for pause in pauses:
        clock.now += pause
        wait_s = count.wait_s(CALLER)
        assert 0 <= wait_s <= 60
        if wait_s == 0:
            count.passed(CALLER)
        elif wait_s > 1e-4:
            clock.now += wait_s - 1e-5
            assert count.wait_s(CALLER) > 0
            clock.now += 2e-5
            assert count.wait_s(CALLER) == 0


@given(pauses=PAUSES, limit=LIMITS)
def test_who_keeps_to_the_rate_is_never_refused(pauses: list[float], limit: int) -> None:
    steady = [pause + 60 / limit + 1e-6 for pause in pauses]
    assert len(passes(steady, limit)) == len(steady)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=100))
def test_callers_do_not_share_a_limit(counts: list[int]) -> None:
    count = LocalCount(5, clock=Clock())
    passed: dict[int, int] = {}
    for caller in counts:
        if count.wait_s(bytes([caller])) == 0:
            count.passed(bytes([caller]))
            passed[caller] = passed.get(caller, 0) + 1
    assert passed == {caller: min(5, counts.count(caller)) for caller in set(counts)}


def test_a_flood_of_callers_takes_bounded_memory() -> None:
    count = LocalCount(5, callers=100, clock=Clock())
    for number in range(10_000):
        count.passed(number.to_bytes(4, "little"))
    assert len(count) == 100


def test_callers_who_owe_nothing_are_forgotten() -> None:
    clock = Clock()
    count = LocalCount(5, clock=clock)
    count.passed(CALLER)
    clock.now += 61
    assert count.wait_s(CALLER) == 0
    assert len(count) == 0


async def test_a_refusal_says_how_long_to_wait_and_which_setting_it_is() -> None:
    clock = Clock()
    limit = RateLimit(2, clock=clock)
    await limit.admit("a")
    await limit.admit("a")
    with pytest.raises(Overloaded, match="RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE") as caught:
        await limit.admit("a")
    assert caught.value.retry_after_s == pytest.approx(30)
    await limit.admit("b")
    clock.now += 30
    await limit.admit("a")


async def test_a_refused_request_does_not_lengthen_the_wait() -> None:
    clock = Clock()
    limit = RateLimit(1, clock=clock)
    await limit.admit("a")
    for _ in range(100):
        with pytest.raises(Overloaded):
            await limit.admit("a")
    clock.now += 60
    await limit.admit("a")


async def test_zero_admits_everything() -> None:
    limit = RateLimit(0, clock=Clock())
    admitted = 0
    for _ in range(1_000):
        await limit.admit("a")
        admitted += 1
    assert admitted == 1_000


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_one_subscriber_is_one_caller(address: str, caller: str) -> None:
    assert caller_of(address) == caller
