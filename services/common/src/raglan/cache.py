"""A bounded cache that counts its hits: the least recently used entry leaves first.

Keys are digests, so that neither the cache nor a dump of it holds anybody's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by digest, up to `capacity`. Belongs to one thread.

    Args:
        capacity: entries, or what `size_of` counts, that are kept; 0 keeps nothing.
        size_of: what a value takes of the capacity; without it, 1.
    """

    def __init__(self, capacity: float, size_of: Callable[[Value], float] | None = None) -> None:
        self.hits = 0
        self.misses = 0
        self._size_of = size_of or (lambda _: 1.0)
        self._held: LRUCache[bytes, Value] = LRUCache(capacity, size_of)

    def __len__(self) -> int:
        """Entries held."""
        return len(self._held)

    @property
    def size(self) -> float:
        """Capacity used by the entries, in the unit of `weigh`."""
        return self._held.currsize

    def get(self, key: bytes) -> Value | None:
        """The value under `key`, now the most recently used; None when there is none."""
        value = self._held.get(key)
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def put(self, key: bytes, value: Value) -> None:
        """Keep `value`, at the cost of those least recently used. One too large is not kept."""
        if self._size_of(value) <= self._held.maxsize:
            self._held[key] = value


def digest(*parts: str) -> bytes:
    """16 bytes that stand for `parts`, and for no other way of cutting the same characters."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "little"))
        hashed.update(encoded)
    return hashed.digest()
