"""The order of passages in a prompt: frequently requested ones come first.

A server's prefix cache serves a passage again only when all before it is the same. So passages keep
a stable order among themselves, and the popular ones stand where prompts have most in common.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from raglan.cache import Cache, digest

_HALF_LIFE: Final = 1000
"""Requests of a tenant after which an appearance counts half."""


class PassageOrder:
    """Arranges passages by how often they were arranged before, or leaves them by rank.

    Each tenant has counts of its own, so that none can tell from its prompts what another asks.
    They are estimates of use, kept for the `passages` last seen of the `tenants` last seen, some
    350 bytes each. The same calls give the same orders. May be used from any thread.
    """

    def __init__(
        self,
        kind: Literal["popularity", "rank"] = "popularity",
        *,
        passages: int = 1024,
        tenants: int = 128,
    ) -> None:
        self._kind = kind
        self._passages = passages
        self._tenants: Cache[_Popularity] = Cache(tenants)
        self._lock = threading.Lock()

    def arrange(self, tenant: str, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys`, in the order for the prompt, and count each as seen once more.

        Args:
            tenant: whose request this is.
            keys: a digest of each passage, all different, best ranked first.
        """
        if self._kind == "rank":
            return list(range(len(keys)))
        with self._lock:
            name = digest(tenant)
            popularity = self._tenants.get(name)
            if popularity is None:
                popularity = _Popularity(self._passages)
                self._tenants.put(name, popularity)
            return popularity.arrange(keys)


class _Seen(NamedTuple):
    weight: float
    """log2 of the decayed count, on a scale that grows by 1 each half-life: it needs no update."""
    since: int
    """Serial number of the passage: the order among equally popular ones."""


class _Popularity:
    """The decayed counts of one tenant."""

    def __init__(self, passages: int) -> None:
        self._seen: Cache[_Seen] = Cache(passages)
        self._requests = 0
        self._count = 0

    def arrange(self, keys: Sequence[bytes]) -> list[int]:
        now = self._requests / _HALF_LIFE
        self._requests += 1
        before = [self._seen.get(key) for key in keys]
        # What is new stands last, by rank; seen again, it is still in that order.
        after = []
        for seen in before:
            if seen is None:
                after.append(_Seen(now, self._count))
                self._count += 1
            else:
                after.append(_Seen(_log2_sum(seen.weight, now), seen.since))
        order = sorted(
            range(len(keys)),
            key=lambda i: (before[i] is None, -after[i].weight, after[i].since),
        )
        # The last to be forgotten are those that come first.
        for i in reversed(order):
            self._seen.put(keys[i], after[i])
        return order


def _log2_sum(a: float, b: float) -> float:
    """Compute log2(2**a + 2**b)."""
    return max(a, b) + math.log2(1 + 2 ** -abs(a - b))
