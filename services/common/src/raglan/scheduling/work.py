"""Data types of the scheduler: items, batches and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any


class DeviceLost(Exception):
    """The device will not run anything any more; raised by a stream, it ends the service."""


class BatchTooLarge(Exception):
    """The device has no memory for this batch; raised by a stream, it makes later ones smaller."""


class Lane(IntEnum):
    """Priority lane of a text."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""

    BULK = 1
    """Ingestion: keeps a guaranteed share and takes what is left."""


class FlushReason(Enum):
    """Reason for which a batch was closed."""

    IDLE = "idle"
    """The device was free and nothing else waited that could have joined."""

    TOKEN_CAP = "token_cap"  # noqa: S105 - a token of text
    ITEM_CAP = "item_cap"
    PADDING = "padding"
    """The next text differs in length: padding would cost more than a batch of its own."""

    DEADLINE = "deadline"
    """One more would have made its most urgent text late, or late ones were dropped from it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a pool of streams."""

    batch_tokens: int
    """Padded tokens of a batch: items times the longest of them. A longer item runs alone."""

    batch_items: int

    waiting_items: int
    """Items that may wait in a lane; past it, requests are refused whole. Of a lane, so that bulk
    work that waits does not shut queries out."""

    streams: int = 1
    """Batches that run at the same time."""

    padded: Callable[[int], int] = int
    """Padded width of a batch by its longest item, in tokens; never less, never falling."""

    window: int = 64
    """Waiting items, most urgent first, among which like lengths are looked for."""

    bulk_share: float = 0.2
    """Of the tokens run while both lanes wait, what bulk gets at least."""

    margin_s: float = 0.0
    """Kept back for the way home: what would end later than its deadline minus this is late."""


@dataclass(slots=True, eq=False)
class Item:
    """One text in the queue."""

    tokens: int
    lane: Lane
    expires_at: float
    """The deadline, on the clock that gives the scheduler its `now`, in seconds."""

    payload: Any = None
    """The caller's; never looked at."""

    urgent_at: float = 0.0
    """Key of the order: the deadline, or sooner once it has waited; set on arrival."""

    sequence: int = 0
    """Order of arrival; breaks ties."""

    waiting: bool = False

    is_trial: bool = False
    """Admitted by an idle device although the estimate calls it late: it runs until the deadline
    itself has passed, so that an estimate that is wrong is unlearnt."""


@dataclass(slots=True, eq=False)
class Batch:
    """Items that run together."""

    items: list[Item]
    lane: Lane
    padded_tokens: int
    closed: FlushReason
    seconds: float
    """Expected duration in seconds."""

    ends_at: float = 0.0
    """Expected end, in seconds of the caller's clock."""

    credit: float = field(default=0.0)
    """Bulk's claim before this batch was formed; given back when the batch is taken back."""
