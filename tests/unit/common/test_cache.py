"""The bounded cache: what it keeps, what it lets go, what it counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from raglan.cache import Cache, digest

texts = st.lists(st.text(max_size=8), max_size=4)


def test_what_was_put_is_found_and_both_outcomes_are_counted() -> None:
    cache: Cache[float] = Cache(2)
    cache.put(b"a", 0.0)
    assert (cache.get(b"a"), cache.get(b"b")) == (0.0, None)
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_least_recently_used_leaves_first() -> None:
    cache: Cache[int] = Cache(2)
    cache.put(b"a", 1)
    cache.put(b"b", 2)
    cache.get(b"a")
    cache.put(b"c", 3)
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [1, None, 3]


def test_a_capacity_of_nothing_keeps_nothing() -> None:
    cache: Cache[int] = Cache(0)
    cache.put(b"a", 1)
    assert cache.get(b"a") is None


def test_a_value_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache: Cache[np.ndarray] = Cache(100, lambda array: array.nbytes)
    cache.put(b"small", np.zeros(10, np.int8))
    cache.put(b"large", np.zeros(101, np.int8))
    assert cache.get(b"large") is None
    assert cache.get(b"small") is not None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_it_never_holds_more_than_its_capacity(puts: list[tuple[int, int]]) -> None:
    cache: Cache[bytes] = Cache(50, len)
    for key, size in puts:
        cache.put(bytes([key]), b"x" * size)
        assert cache.size <= 50
        assert cache.get(bytes([key])) == b"x" * size


@given(texts, texts)
def test_two_lists_of_texts_share_a_digest_only_when_equal(
    first: list[str], second: list[str]
) -> None:
    assert (digest(*first) == digest(*second)) == (first == second)
