"""Mean readability of a collection's texts."""

from __future__ import annotations

import dataclasses

import pytest
from raglan_retriever.collection import Collection, MeanReadability, Model


def test_the_mean_is_over_all_chunks_while_there_are_few() -> None:
    mean = MeanReadability().including([1.0, 0.5]).including([0.0])
    assert (mean.value, mean.chunks) == (0.5, 3)


def test_the_mean_follows_documents_that_replace_others() -> None:
    mean = MeanReadability().including([1.0] * 5_000)
    for _ in range(5_000):
        mean = mean.including([0.0])
    assert mean.value < 0.01


def test_no_chunks_change_nothing() -> None:
    assert MeanReadability().including([]) == MeanReadability()


@pytest.mark.parametrize("mean", [MeanReadability(), MeanReadability(0.5, 3)])
def test_a_description_keeps_it(mean: MeanReadability) -> None:
    held = Collection("c", Model("m", "r", 3), 100, 0, "2026-11-28", "en", mean_readability=mean)
    assert Collection.from_json(held.to_json()) == held
    assert held.readability == (0.5 if mean.chunks else None)


def test_a_description_made_before_knows_none() -> None:
    held = Collection("c", Model("m", "r", 3), 100, 0, "2026-11-28", "en")
    stored = held.to_json()
    del stored["mean_readability"]
    assert Collection.from_json(stored) == dataclasses.replace(held)
