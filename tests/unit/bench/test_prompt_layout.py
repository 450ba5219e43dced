"""The simulated prefix cache: whole blocks, from the beginning, the least recently used leave."""

from __future__ import annotations

from prompt_layout import simulated


def test_whole_blocks_of_a_common_beginning_are_served() -> None:
    first, second = list(range(10)), [*range(6), 99, 98, 97, 96]
    assert simulated(iter([first, second]), 4, None) == 4 / 20


def test_the_last_token_is_always_computed() -> None:
    assert simulated(iter([[1, 2, 3, 4]] * 2), 4, None) == 0
    assert simulated(iter([[1, 2, 3, 4, 5]] * 2), 4, None) == 4 / 10


def test_what_does_not_begin_alike_is_not_served() -> None:
    assert simulated(iter([[1, 2, 3, 4, 5, 6], [9, 9, 3, 4, 5, 6]]), 2, None) == 0


def test_the_least_recently_used_leaves_and_the_end_of_a_prompt_first() -> None:
    first, second = [1, 2, 3, 4, 5], [6, 7, 8]
    assert simulated(iter([first, second, first]), 2, 4) == 2 / 13
