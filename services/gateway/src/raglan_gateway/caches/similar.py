"""The semantic cache, off by default: questions with a cached answer, found again by meaning.

In this process only. An entry is a question, its vector and the key of its answer in the cache of
answers, which may be in Redis: nothing of an answer is kept twice, and none outlives its own entry
there. Everything but the question decides the scope of an entry, revisions of the collections
included, so that an answer is given again only where an identical question would get it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final, NamedTuple

import numpy as np
from cachetools import TTLCache
from numpy.typing import NDArray
from raglan import tenancy

from raglan_gateway.caches.guards import Features, same_question

Vector = NDArray[np.float32]

SCANNED_BYTES: Final = 2 * 1024 * 1024
"""Vectors that one lookup compares, about 0.2 ms of one core."""
_MOST_ROWS: Final = 1_024
_FIRST_ROWS: Final = 16
_ENTRY_BYTES: Final = 1_200
"""Of a question besides its text and its words."""
_WORD_BYTES: Final = 72
"""Of a word of its features."""
_COMPARED: Final = 8
"""Nearest questions that the guards look at."""


class Scope(NamedTuple):
    """Everything that decides an answer besides the question."""

    collections: frozenset[str]
    """Qualified names; none may change without another `key`."""
    key: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A question whose answer is cached."""

    text: str
    features: Features
    answer: bytes
    """Its key in the cache of answers."""

    @property
    def bytes(self) -> int:
        """Memory of it, about."""
        held = self.features
        kinds = (held.words, held.content, held.names, held.facts, held.contrasts, held.units)
        return _ENTRY_BYTES + getsizeof(self.text) + _WORD_BYTES * sum(map(len, kinds))


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier question that asks the same."""

    asked: Asked
    similarity: float
    """Cosine of the vectors."""


@dataclass(slots=True)
class _Ring:
    """The newest questions of a scope."""

    rows: int
    vectors: Vector
    asked: list[Asked] = field(default_factory=list)
    asked_bytes: int = 0
    oldest: int = 0

    def add(self, vector: Vector, asked: Asked) -> None:
        if asked.text in (each.text for each in self.asked):
            return
        self.asked_bytes += asked.bytes
        if len(self.asked) < self.rows:
            if len(self.asked) == len(self.vectors):
                more = min(len(self.vectors), self.rows - len(self.vectors))
                self.vectors = np.pad(self.vectors, ((0, more), (0, 0)))
            self.vectors[len(self.asked)] = vector
            self.asked.append(asked)
            return
        self.asked_bytes -= self.asked[self.oldest].bytes
        self.vectors[self.oldest] = vector
        self.asked[self.oldest] = asked
        self.oldest = (self.oldest + 1) % self.rows

    @property
    def bytes(self) -> int:
        return self.vectors.nbytes + self.asked_bytes


class SimilarQuestions:
    """Questions by scope and vector.

    Args:
        similarity: least cosine, in (0, 1]; 0 keeps nothing.
        max_bytes: memory of all entries.
        keep_s: lifetime of a cached answer; a scope without a new one for so long is dropped.
    """

    def __init__(self, similarity: float, max_bytes: int, keep_s: float) -> None:
        self.is_on = similarity > 0 and keep_s > 0
        self._similarity = similarity
        self._rings: TTLCache[Scope, _Ring] = TTLCache(
            max_bytes, ttl=keep_s, getsizeof=lambda ring: ring.bytes
        )

    @property
    def bytes_held(self) -> int:
        """Memory of the entries."""
        return int(self._rings.currsize)

    def find(self, scope: Scope, features: Features, vector: Vector) -> list[Match]:
        """Return the questions of `scope` that ask the same, nearest first."""
        ring = self._rings.get(scope)
        unit = _unit(vector)
        if ring is None or unit is None or unit.shape[0] != ring.vectors.shape[1]:
            return []
        cosines = ring.vectors[: len(ring.asked)] @ unit
        near = np.flatnonzero(cosines >= self._similarity)
        nearest = near[np.argsort(-cosines[near])][:_COMPARED]
        return [
            Match(ring.asked[at], float(cosines[at]))
            for at in nearest
            if same_question(features, ring.asked[at].features)
        ]

    def add(self, scope: Scope, asked: Asked, vector: Vector) -> None:
        """Keep a question whose answer was cached; the oldest of a full scope goes."""
        unit = _unit(vector)
        if unit is None or not self.is_on:
            return
        # Taken out at each change, and set again: it has grown, and lives from now on.
        ring = self._rings.pop(scope, None)
        if ring is None or ring.vectors.shape[1] != len(unit):
            ring = _new_ring(len(unit))
        ring.add(unit, asked)
        if ring.bytes > self._rings.maxsize:
            # The scope alone has grown beyond the limit: it begins anew.
            ring = _new_ring(len(unit))
            ring.add(unit, asked)
        if ring.bytes <= self._rings.maxsize:
            self._rings[scope] = ring

    def forget(self, collection: str) -> None:
        """Drop the questions of a collection of the current tenant."""
        name = tenancy.qualified(collection)
        for scope in [scope for scope in self._rings if name in scope.collections]:
            self._rings.pop(scope, None)


def _new_ring(dimension: int) -> _Ring:
    rows = min(_MOST_ROWS, max(1, SCANNED_BYTES // (4 * dimension)))
    return _Ring(rows, np.empty((min(rows, _FIRST_ROWS), dimension), np.float32))


def _unit(vector: Vector) -> Vector | None:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        return None
    return (vector / length).astype(np.float32)
