"""Quotas of callers: requests a minute, requests in progress, generated tokens a minute.

All gateways count together through Redis, in one round trip a request. Each also counts for itself
what it lets pass. That is never more than all gateways count, so whom it refuses is refused without
a round trip; and when Redis is away or has lost its data, its own count is what holds.

Tokens are known only when an answer ends. A request reserves some when it begins, and the
difference is charged, or given back, at its end. So a burst cannot pass more requests than its
tokens pay for at `RESERVED_TOKENS` each; what they write above that is owed, and nobody who owes
passes before it is paid.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from raglan.cache import digest
from raglan.errors import Overloaded, Unavailable

from raglan_gateway.admission.local_count import CALLERS, LocalRate
from raglan_gateway.admission.quotas import Quotas
from raglan_gateway.admission.shared_count import SharedCount, Verdict

MOST_PER_MINUTE: Final = 1_000_000
"""Above it, an interval in whole microseconds would be too coarse."""

RESERVED_TOKENS: Final = 256
"""Tokens that a request takes until it is known how many were written."""

_DEBT_S: Final = 3_600
"""Longest time for which tokens are owed."""

_REQUESTS, _CONCURRENT, _TOKENS = 1, 2, 3
_BUSY_S: Final = 1.0
"""Delay before the next attempt for a place: the time until one is free is unknown."""

_SENTENCES: Final = {
    _REQUESTS: "The limit is {} requests a minute ({}); try again in {:.1f} s ({}).",
    _CONCURRENT: "{} requests are in progress, the limit ({}); try again in {:.1f} s ({}).",
    _TOKENS: "The limit is {} generated tokens a minute ({}); try again in {:.1f} s ({}).",
}
_SETTINGS: Final = {
    _REQUESTS: "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE",
    _CONCURRENT: "RAGLAN_GATEWAY_CONCURRENT_PER_CALLER",
    _TOKENS: "RAGLAN_GATEWAY_TOKENS_PER_MINUTE",
}


@dataclass(slots=True)
class Admitted:
    """A request that passed; `RateLimit.leave` ends it."""

    quotas: Quotas
    owner: bytes
    lease: str
    headers: tuple[tuple[str, str], ...]
    """`RateLimit-Policy` and `RateLimit` of its reply."""
    reserved: int
    spent: int | None = None
    """Tokens that were generated for it; None where nothing says so."""


_admitted: ContextVar[Admitted | None] = ContextVar("raglan_admitted", default=None)


def spend(tokens: int) -> None:
    """Note tokens that were generated for the current request."""
    if (request := _admitted.get()) is not None:
        request.spent = (request.spent or 0) + tokens


class RateLimited(Overloaded):
    """A quota refuses a request."""

    headers: tuple[tuple[str, str], ...] = ()


class RateLimit:
    """Admits requests, or says how long to wait.

    Args:
        shared: counts for all gateways; not owned.
        callers: counted at a time.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        shared: SharedCount | None = None,
        *,
        callers: int = CALLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._requests = LocalRate(callers=callers, clock=clock)
        self._tokens = LocalRate(callers=callers, debt_s=_DEBT_S, clock=clock)
        self._held: Counter[bytes] = Counter()
        self._ids = map("{}-{}".format, itertools.repeat(os.urandom(8).hex()), itertools.count())

    async def enter(self, quotas: Quotas) -> Admitted:
        """Count a request; end it by `leave`.

        Raises:
            RateLimited: the caller has to wait for `retry_after_s`; the request is not counted.
        """
        owner = digest(quotas.owner, quotas.group)
        reserved = min(RESERVED_TOKENS, quotas.tokens)
        lease = next(self._ids)
        verdict = self._own_verdict(owner, quotas, reserved)
        if not verdict.refused and self._shared is not None:
            try:
                verdict = await self._shared.admit(
                    owner.hex(), lease, quotas.requests, quotas.concurrent, quotas.tokens, reserved
                )
            except Unavailable:
                # Others of this caller may have passed meanwhile.
                verdict = self._own_verdict(owner, quotas, reserved)
        if verdict.refused:
            raise _refusal(quotas, verdict)
        if quotas.requests:
            self._requests.use(owner, quotas.requests)
        if quotas.tokens:
            self._tokens.use(owner, quotas.tokens, reserved)
        if quotas.concurrent:
            self._held[owner] += 1
        request = Admitted(quotas, owner, lease, _headers(quotas, verdict), reserved)
        _admitted.set(request)
        return request

    def leave(self, request: Admitted) -> None:
        """End a request: give its place back, and settle its tokens."""
        quotas, owner = request.quotas, request.owner
        if quotas.concurrent:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
            if self._shared is not None:
                self._shared.release(request.lease)
        # Of a request whose answer did not come to its end, the reservation is what it pays.
        if quotas.tokens and request.spent is not None:
            due = request.spent - request.reserved
            self._tokens.use(owner, quotas.tokens, due)
            if self._shared is not None:
                self._shared.settle(owner.hex(), due, quotas.tokens)

    def _own_verdict(self, owner: bytes, quotas: Quotas, reserved: int) -> Verdict:
        """Decide by what this gateway let pass itself."""
        refused, wait_s, requests_left, tokens_left = 0, 0.0, 0, 0
        if quotas.requests:
            wait_s = self._requests.wait_s(owner, quotas.requests)
            refused = _REQUESTS if wait_s > 0 else 0
            requests_left = max(0, self._requests.left(owner, quotas.requests) - 1)
        if quotas.tokens:
            needed_s = self._tokens.wait_s(owner, quotas.tokens, reserved)
            if needed_s > wait_s:
                refused, wait_s = _TOKENS, needed_s
            tokens_left = max(0, self._tokens.left(owner, quotas.tokens) - reserved)
        held = self._held[owner] if quotas.concurrent else 0
        if quotas.concurrent and held >= quotas.concurrent and not refused:
            refused, wait_s = _CONCURRENT, _BUSY_S
        places = max(0, quotas.concurrent - held - 1)
        return Verdict(refused, wait_s, requests_left, places, tokens_left)


def _refusal(quotas: Quotas, verdict: Verdict) -> RateLimited:
    limit = (quotas.requests, quotas.concurrent, quotas.tokens)[verdict.refused - 1]
    sentence = _SENTENCES[verdict.refused]
    error = RateLimited(
        sentence.format(limit, quotas.group, verdict.wait_s, _SETTINGS[verdict.refused]),
        retry_after_s=verdict.wait_s,
    )
    error.headers = _headers(quotas, verdict)
    return error


def _headers(quotas: Quotas, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers-11: lists of structured fields."""
    wait_s = math.ceil(verdict.wait_s)
    rows = (
        (_REQUESTS, "requests", quotas.requests, verdict.requests_left, ";w=60"),
        (
            *(_CONCURRENT, "concurrent", quotas.concurrent, verdict.concurrent_left),
            ';qu="concurrent-requests"',
        ),
        (_TOKENS, "tokens", quotas.tokens, verdict.tokens_left, ';w=60;qu="tokens"'),
    )
    policies, states = [], []
    for number, name, quota, left, unit in rows:
        if quota:
            refused = number == verdict.refused
            policies.append(f'"{quotas.group}-{name}";q={quota}{unit}')
            after = f";t={wait_s}" if refused else ""
            states.append(f'"{quotas.group}-{name}";r={0 if refused else left}{after}')
    if not policies:
        return ()
    return (("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(states)))
