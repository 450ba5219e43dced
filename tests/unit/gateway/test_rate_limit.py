"""The limit of a caller in one gateway, against every pattern of arrivals that comes to mind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import Overloaded
from raglan_gateway.admission.local_count import LocalRate
from raglan_gateway.admission.quotas import Quotas, RouteGroup, quotas, route_group, subscriber
from raglan_gateway.admission.rate_limit import RESERVED_TOKENS, RateLimit, RateLimited, spend
from raglan_gateway.caller import ANONYMOUS, Caller, Limits

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
    count = LocalRate(clock=clock)
    passed = []
    for pause in pauses:
        clock.now += pause
        if count.wait_s(CALLER, limit) == 0:
            count.use(CALLER, limit)
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
    count = LocalRate(clock=clock)
    for pause in pauses:
        clock.now += pause
        wait_s = count.wait_s(CALLER, limit)
        assert 0 <= wait_s <= 60
        if wait_s == 0:
            count.use(CALLER, limit)
        elif wait_s > 1e-4:
            clock.now += wait_s - 1e-5
            assert count.wait_s(CALLER, limit) > 0
            clock.now += 2e-5
            assert count.wait_s(CALLER, limit) == 0


@given(pauses=PAUSES, limit=LIMITS)
def test_who_keeps_to_the_rate_is_never_refused(pauses: list[float], limit: int) -> None:
    steady = [pause + 60 / limit + 1e-6 for pause in pauses]
    assert len(passes(steady, limit)) == len(steady)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=100))
def test_callers_do_not_share_a_limit(counts: list[int]) -> None:
    count = LocalRate(clock=Clock())
    passed: dict[int, int] = {}
    for caller in counts:
        if count.wait_s(bytes([caller]), 5) == 0:
            count.use(bytes([caller]), 5)
            passed[caller] = passed.get(caller, 0) + 1
    assert passed == {caller: min(5, counts.count(caller)) for caller in set(counts)}


def test_a_flood_of_callers_takes_bounded_memory() -> None:
    count = LocalRate(callers=100, clock=Clock())
    for number in range(10_000):
        count.use(number.to_bytes(4, "little"), 5)
    assert len(count) == 100


def test_callers_who_owe_nothing_are_forgotten() -> None:
    clock = Clock()
    count = LocalRate(clock=clock)
    count.use(CALLER, 5)
    clock.now += 61
    assert count.wait_s(CALLER, 5) == 0
    assert len(count) == 0


def requests(limit: int, owner: str = "a") -> Quotas:
    return Quotas(owner, RouteGroup.SEARCH, requests=limit)


async def test_a_refusal_says_how_long_to_wait_and_which_setting_it_is() -> None:
    clock = Clock()
    limit = RateLimit(clock=clock)
    await limit.enter(requests(2))
    await limit.enter(requests(2))
    with pytest.raises(Overloaded, match="RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE") as caught:
        await limit.enter(requests(2))
    assert caught.value.retry_after_s == pytest.approx(30)
    await limit.enter(requests(2, "b"))
    clock.now += 30
    await limit.enter(requests(2))


async def test_a_refused_request_does_not_lengthen_the_wait() -> None:
    clock = Clock()
    limit = RateLimit(clock=clock)
    await limit.enter(requests(1))
    for _ in range(100):
        with pytest.raises(Overloaded):
            await limit.enter(requests(1))
    clock.now += 60
    await limit.enter(requests(1))


async def test_requests_in_progress_are_limited_until_they_end() -> None:
    limit = RateLimit(clock=Clock())
    quota = Quotas("a", RouteGroup.ANSWER, concurrent=2)
    first, _ = await limit.enter(quota), await limit.enter(quota)
    with pytest.raises(RateLimited, match="RAGLAN_GATEWAY_CONCURRENT_PER_CALLER"):
        await limit.enter(quota)
    limit.leave(first)
    await limit.enter(quota)


async def test_tokens_above_the_limit_are_owed_and_paid_by_time() -> None:
    clock = Clock()
    limit = RateLimit(clock=clock)
    quota = Quotas("a", RouteGroup.ANSWER, tokens=600)
    answer = await limit.enter(quota)
    spend(1_500)
    limit.leave(answer)
    with pytest.raises(RateLimited, match="RAGLAN_GATEWAY_TOKENS_PER_MINUTE") as caught:
        await limit.enter(quota)
    # 1,500 are used; 600 a minute, and the next needs room for its reservation.
    owed = 1_500 + RESERVED_TOKENS - 600
    assert caught.value.retry_after_s == pytest.approx(owed / 10, abs=0.01)
    clock.now += owed / 10 + 0.01
    await limit.enter(quota)


async def test_tokens_that_were_reserved_and_not_written_are_given_back() -> None:
    limit = RateLimit(clock=Clock())
    quota = Quotas("a", RouteGroup.ANSWER, tokens=RESERVED_TOKENS)
    for _ in range(10):
        answer = await limit.enter(quota)
        spend(0)
        limit.leave(answer)


async def test_a_burst_passes_no_more_answers_than_their_reservations_pay_for() -> None:
    limit = RateLimit(clock=Clock())
    quota = Quotas("a", RouteGroup.ANSWER, tokens=10 * RESERVED_TOKENS)
    passed = 0
    for _ in range(100):
        try:
            await limit.enter(quota)
        except RateLimited:
            continue
        passed += 1
    assert passed == 10


async def test_the_headers_name_each_quota_and_what_is_left() -> None:
    limit = RateLimit(clock=Clock())
    quota = Quotas("a", RouteGroup.ANSWER, requests=2, concurrent=2, tokens=10_000)
    headers = dict((await limit.enter(quota)).headers)
    assert headers == {
        "ratelimit-policy": '"answer-requests";q=2;w=60, '
        '"answer-concurrent";q=2;qu="concurrent-requests", '
        '"answer-tokens";q=10000;w=60;qu="tokens"',
        "ratelimit": f'"answer-requests";r=1, "answer-concurrent";r=1, '
        f'"answer-tokens";r={10_000 - RESERVED_TOKENS}',
    }
    await limit.enter(quota)
    with pytest.raises(RateLimited) as caught:
        await limit.enter(quota)
    assert '"answer-requests";r=0;t=30' in dict(caught.value.headers)["ratelimit"]


def test_a_keys_own_limits_come_before_those_of_the_settings() -> None:
    defaults = Limits(requests_per_minute=10, concurrent_requests=3, tokens_per_minute=100)
    key = Caller(id="k", limits=Limits(requests_per_minute=99))
    own = quotas(key, "192.0.2.7", RouteGroup.ANSWER, defaults)
    assert (own.owner, own.requests, own.concurrent, own.tokens) == ("key k", 99, 3, 100)
    other = quotas(ANONYMOUS, "192.0.2.7", RouteGroup.SEARCH, defaults)
    assert (other.owner, other.requests, other.tokens) == ("address 192.0.2.7", 10, 0)


@pytest.mark.parametrize(
    ("method", "path", "group"),
    [
        ("POST", "/v1/query", RouteGroup.ANSWER),
        ("POST", "/v1/chat/completions", RouteGroup.ANSWER),
        ("POST", "/v1/search", RouteGroup.SEARCH),
        ("POST", "/v1/vector_stores/a/search", RouteGroup.SEARCH),
        ("GET", "/v1/collections", RouteGroup.READ),
        ("DELETE", "/v1/collections/a", RouteGroup.WRITE),
        ("POST", "/v1/anything/new", RouteGroup.WRITE),
    ],
)
def test_every_route_is_in_a_group(method: str, path: str, group: RouteGroup) -> None:
    assert route_group(method, path) is group


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
    assert subscriber(address) == caller
