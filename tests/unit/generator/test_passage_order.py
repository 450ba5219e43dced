"""The order of passages: stable, popular first, each tenant for itself, bounded."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.passage_order import PassageOrder

requests = st.lists(st.lists(st.integers(0, 12), unique=True, max_size=8), max_size=30)


def arranged(order: PassageOrder, passages: Sequence[int], tenant: str = "") -> list[int]:
    positions = order.arrange(tenant, [passage.to_bytes(4, "big") for passage in passages])
    return [passages[position] for position in positions]


@given(requests, st.permutations(range(6)))
def test_the_same_passages_keep_their_order_however_they_are_ranked(
    before: list[list[int]], again: list[int]
) -> None:
    order = PassageOrder()
    for passages in before:
        arranged(order, passages)
    assert arranged(order, range(6)) == arranged(order, again)


@given(requests)
def test_an_order_holds_each_passage_once(before: list[list[int]]) -> None:
    order = PassageOrder(passages=4)
    for passages in before:
        assert sorted(arranged(order, passages)) == sorted(passages)


@given(requests)
def test_the_same_calls_give_the_same_orders(calls: list[list[int]]) -> None:
    first, second = PassageOrder(), PassageOrder()
    for passages in calls:
        assert arranged(first, passages) == arranged(second, passages)


@given(requests, requests)
def test_no_tenant_sees_what_another_asks(mine: list[list[int]], theirs: list[list[int]]) -> None:
    alone, beside = PassageOrder(), PassageOrder()
    for passages in theirs:
        arranged(beside, passages, "theirs")
    for passages in mine:
        assert arranged(alone, passages, "mine") == arranged(beside, passages, "mine")
        arranged(beside, passages, "theirs")


@given(requests)
def test_by_rank_nothing_moves(calls: list[list[int]]) -> None:
    order = PassageOrder("rank")
    for passages in calls:
        assert arranged(order, passages) == passages


def test_the_more_popular_comes_first_and_the_unknown_last_by_rank() -> None:
    order = PassageOrder()
    for passages in ([1], [2, 1], [2, 1], [2, 3]):
        arranged(order, passages)
    arranged(order, [2])
    assert arranged(order, [9, 3, 8, 1, 2]) == [2, 1, 3, 9, 8]


def test_what_was_popular_long_ago_gives_way() -> None:
    order = PassageOrder()
    for _ in range(30):
        arranged(order, [1])
    for _ in range(8_000):
        arranged(order, [3])
    for _ in range(2):
        arranged(order, [2])
    assert arranged(order, [1, 2]) == [2, 1]


def test_a_forgotten_passage_is_new_again() -> None:
    order = PassageOrder(passages=2)
    for passages in ([1], [1], [2], [3]):
        arranged(order, passages)
    assert arranged(order, [4, 1, 2]) == [2, 4, 1]


def test_a_forgotten_tenant_begins_anew() -> None:
    order = PassageOrder(tenants=1)
    arranged(order, [1], "a")
    arranged(order, [2], "b")
    assert arranged(order, [2, 1], "a") == [2, 1]
