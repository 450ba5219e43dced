"""Limits of a request's body: size, time, rate, and the bytes of all bodies together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from raglan.errors import Cancelled, PayloadTooLarge, RaglanError, Unavailable
from starlette.types import Message, Receive

from raglan_gateway.admission.checks import Check, CountRefusal
from raglan_gateway.error_reply import RequestTimeout


class Quota:
    """An amount that the requests in progress share: places, or bytes of their bodies.

    Args:
        unit: plural noun of what is counted.
        setting: the setting that `limit` follows from; the refusal names it.
    """

    def __init__(self, limit: int, unit: str, setting: str, count: CountRefusal) -> None:
        self.used = 0
        self._limit = limit
        self._unit = unit
        self._setting = setting
        self._count = count

    def acquire(self, amount: int = 1) -> None:
        """Take `amount`, or raise Unavailable."""
        if self.used + amount > self._limit:
            self._count(Check.CONCURRENCY)
            raise Unavailable(
                f"{self.used:,} {self._unit} are in progress, of {self._limit:,} at most; "
                f"try again soon ({self._setting}).",
                retry_after_s=1,
            )
        self.used += amount

    def release(self, amount: int = 1) -> None:
        """Give `amount` back."""
        self.used -= amount


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits of one kind of body."""

    max_bytes: int
    setting: str
    pause_s: float
    """Longest wait for the next piece, and for the whole of a body without `min_rate`."""
    min_rate: float | None
    """Bytes a second that extend the time; None extends it by nothing."""


class LimitedBody:
    """The body of one request, received within its limits.

    Only the time spent waiting for the client counts: a reader of ours may be slow.

    Args:
        budget: takes the bytes that are received, until `release`.
    """

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[str, str],
        limits: BodyLimits,
        budget: Quota | None,
        count: CountRefusal,
    ) -> None:
        self._receive = receive
        self._announced = int(headers.get("content-length") or 0)
        self._limits = limits
        self._budget = budget
        self._count = count
        self._read = 0
        self._held = 0
        self._waited_s = 0.0
        self._complete = False

    async def receive(self) -> Message:
        """Receive the next message of the request.

        Raises:
            PayloadTooLarge: the body is larger than its limit.
            RequestTimeout: the client sends too slowly.
            Unavailable: the bodies of all requests together are too large.
            Cancelled: the client left before the body was complete.
        """
        if self._complete:  # the next message is the disconnect
            return await self._receive()
        self._check_size(self._announced)
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise Cancelled("The client left before its body was complete.")
        size = len(message.get("body", b""))
        self._read += size
        self._complete = not message.get("more_body", False)
        self._check_size(self._read)
        if self._budget is not None:
            self._budget.acquire(size)
            self._held += size
        return message

    async def receive_whole(self) -> Receive:
        """Receive the whole body; returns a `receive` that gives it in one message."""
        pieces = []
        try:
            while not self._complete:
                pieces.append((await self.receive()).get("body", b""))
        finally:
            self.release()
        whole: Message | None = {"type": "http.request", "body": b"".join(pieces)}

        async def replay() -> Message:
            nonlocal whole
            message, whole = whole, None
            return message or await self._receive()

        return replay

    def release(self) -> None:
        """Give the bytes back to the budget."""
        if self._budget is not None:
            self._budget.release(self._held)
        self._held = 0

    async def _next(self) -> Message:
        limits = self._limits
        extension_s = self._read / limits.min_rate if limits.min_rate else 0.0
        left_s = limits.pause_s + extension_s - self._waited_s
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(limits.pause_s, left_s)):
                return await self._receive()
        except TimeoutError:
            least = f", or less than {limits.min_rate:g} bytes a second" if limits.min_rate else ""
            error = RequestTimeout(
                f"The body took longer than {limits.pause_s:g} s to arrive"
                f"{least} (RAGLAN_GATEWAY_BODY_S)."
            )
            raise self._refused(Check.BODY_TIME, error) from None
        finally:
            self._waited_s += time.monotonic() - began

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_bytes:
            error = PayloadTooLarge(
                f"The body has {size} bytes or more; "
                f"the limit is {self._limits.max_bytes} ({self._limits.setting})."
            )
            raise self._refused(Check.BODY_SIZE, error)

    def _refused(self, check: Check, error: RaglanError) -> RaglanError:
        self._count(check)
        return error
