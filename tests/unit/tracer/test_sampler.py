"""Which traces are kept: each rule by itself, and what nobody can do with them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.v1.traces_pb2 import RequestOutcome
from raglan_tracer.sampler import RATES, Reason, TailSampler

OUTSIDE = bytes(16)
"""A trace id that no share below 1 has."""
INSIDE = b"\xff" * 16
"""One that every share above 0 has."""


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def request(**facts: Any) -> RequestOutcome:
    known: dict[str, Any] = {
        "trace_id": OUTSIDE, "route": "/v1/query", "status": 200, "elapsed_s": 0.1,
    }  # fmt: skip
    return RequestOutcome(**known | facts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sampling(clock: Clock) -> TailSampler:
    return TailSampler(0.05, clock=clock)


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        ({}, ()),
        ({"status": 500}, (Reason.ERROR,)),
        ({"status": 504}, (Reason.ERROR,)),
        ({"status": 429}, (Reason.REFUSED,)),
        ({"status": 499}, (Reason.ERROR,)),
        ({"late_status": 503}, (Reason.ERROR,)),
        ({"late_status": 499}, (Reason.ERROR,)),
        ({"late_status": 404}, (Reason.REFUSED,)),
        ({"status": 422}, (Reason.REFUSED,)),
        ({"status": 404, "trace_id": INSIDE}, (Reason.REFUSED,)),
        ({"degraded": True}, (Reason.DEGRADED,)),
        ({"hedged": True}, (Reason.HEDGED,)),
        ({"retried": True}, (Reason.RETRIED,)),
        ({"status": 202, "started_job": True}, (Reason.JOB,)),
        ({"trace_id": INSIDE}, (Reason.SAMPLED,)),
        ({"caller_sampled": True}, (Reason.WANTED,)),
        ({"caller_sampled": True, "degraded": True}, (Reason.DEGRADED, Reason.WANTED)),
        ({"caller_sampled": False}, ()),
        ({"caller_sampled": False, "status": 500}, (Reason.ERROR,)),
        ({"status": 500, "degraded": True, "retried": True},
         (Reason.ERROR, Reason.DEGRADED, Reason.RETRIED)),
    ],
)  # fmt: skip
def test_a_trace_is_kept_for_each_of_the_reasons(
    sampling: TailSampler, facts: dict[str, Any], reasons: tuple[Reason, ...]
) -> None:
    assert sampling.decide(request(**facts)) == reasons


def test_what_takes_longer_than_its_route_usually_does_is_slow(sampling: TailSampler) -> None:
    for _ in range(200):
        sampling.decide(request(elapsed_s=0.1))
        sampling.decide(request(elapsed_s=5.0, route="/v1/collections/{name}/documents"))
    assert sampling.decide(request(elapsed_s=0.2)) == (Reason.SLOW,)
    wanted = request(elapsed_s=0.2, caller_sampled=True)
    assert sampling.decide(wanted) == (Reason.SLOW, Reason.WANTED)
    assert sampling.decide(request(elapsed_s=0.1)) == ()
    assert sampling.decide(request(elapsed_s=4.9, route="/v1/collections/{name}/documents")) == ()


def test_refusals_do_not_make_the_rest_look_slow(sampling: TailSampler) -> None:
    for _ in range(100):
        sampling.decide(request(elapsed_s=0.1))
        for _ in range(4):
            sampling.decide(request(elapsed_s=0.0001, status=429))
    assert sampling.decide(request(elapsed_s=0.1)) == ()


def test_steady_growth_keeps_no_more_than_the_allowance(
    sampling: TailSampler, clock: Clock
) -> None:
    kept = 0
    for step in range(20_000):
        clock.now += 0.001
        kept += bool(sampling.decide(request(elapsed_s=0.1 + step / 1e4)))
    rate, burst = RATES[Reason.SLOW]
    assert kept <= burst + rate * 20 + 1


@given(st.floats(0, 1), st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20))
def test_the_share_depends_on_the_trace_id_alone_and_grows_with_it(
    share: float, ids: list[bytes]
) -> None:
    one, other, larger = TailSampler(share), TailSampler(share), TailSampler((1 + share) / 2)
    for id_ in ids:
        assert one.in_share(id_) == other.in_share(id_)
        assert one.in_share(id_) <= larger.in_share(id_)
        assert TailSampler(1).in_share(id_)
        assert not TailSampler(0).in_share(id_)


def test_the_share_is_one_in_twenty() -> None:
    chance = random.Random(3)
    sampling = TailSampler(0.05)
    kept = sum(sampling.in_share(chance.randbytes(16)) for _ in range(40_000))
    assert 1_800 < kept < 2_200


@given(
    st.lists(
        st.tuples(
            st.sampled_from([INSIDE, OUTSIDE]),
            st.sampled_from([True, False]),
            st.sampled_from([200, 400, 404, 422]),
        ),
        max_size=1_500,
    )
)
def test_what_a_caller_can_bring_about_at_will_is_bounded(
    requests: list[tuple[bytes, bool, int]],
) -> None:
    sampling = TailSampler(0.05, clock=Clock())
    kept = [
        sampling.decide(request(trace_id=id_, caller_sampled=flag, status=status))
        for id_, flag, status in requests
    ]
    bound = RATES[Reason.WANTED][1] + RATES[Reason.REFUSED][1]
    assert sum(map(bool, kept)) <= bound
    assert sampling.decide(request(trace_id=INSIDE)) == (Reason.SAMPLED,), "ours has its own share"
    assert sampling.decide(request(status=500)) == (Reason.ERROR,), "and errors theirs"


def test_every_reason_has_its_bound() -> None:
    assert set(RATES) == set(Reason)


def test_an_allowance_comes_back_with_time(sampling: TailSampler, clock: Clock) -> None:
    rate, burst = RATES[Reason.REFUSED]
    for _ in range(burst):
        assert sampling.decide(request(status=422))
    assert not sampling.decide(request(status=422))
    assert sampling.refused == 1
    clock.now += 1.01 / rate
    assert sampling.decide(request(status=422))
