"""Hits of one leg in several collections, made one list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raglan import fusion

from raglan_retriever.collection import Collection
from raglan_retriever.stores.store import Hit

Key = tuple[str, str]
"""Collection and point."""

Holders = dict[str, list[Key]]
"""Identifiers, and chunks that hold them."""

FEW: Final = 4
"""An identifier that no more chunks hold means them, however small the collection is."""


def meant(found: Sequence[Holders]) -> frozenset[Key]:
    """Return the chunks of identifiers that few chunks of all collections hold."""
    together: dict[str, list[Key]] = {}
    for holders in found:
        for identifier, keys in holders.items():
            together.setdefault(identifier, []).extend(keys)
    return frozenset(key for keys in together.values() if len(keys) <= FEW for key in keys)


def merge(names: Sequence[str], found: Sequence[list[Hit]], depth: int) -> list[tuple[Key, float]]:
    """Merge one leg of several collections by raw score; ties by collection and point."""
    hits = [
        ((name, hit.id), hit.score) for name, some in zip(names, found, strict=True) for hit in some
    ]
    return sorted(hits, key=lambda item: (-item[1], item[0]))[:depth]


def population(collections: Sequence[Collection], counted: int | None) -> int:
    """Return the number of chunks searched by words, at most `MAX_POPULATION`.

    Args:
        collections: Those searched.
        counted: What the dense leg found, if that is all there is.
    """
    if counted is not None:
        return counted
    chunks = sum(each.mean_length.chunks for each in collections)
    return min(chunks, fusion.MAX_POPULATION)
