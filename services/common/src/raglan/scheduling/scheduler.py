"""Batch scheduler: selects the next batch and drops late work. No clock, thread or socket.

Events and the time go in, decisions come out. The rules:

- Work-conserving, no timer: a free stream takes what waits. One batch more is handed out ahead, so
  that a stream never waits for the next decision; it can be taken back until it begins.
- Two lanes. Interactive goes first; bulk keeps a share of the tokens while both wait, and two bulk
  batches never follow each other while a query waits.
- Within a lane the earliest deadline goes first, together with texts of like length (`packing`); a
  deadline further away than `PATIENCE_S` counts as that.
- What would miss its deadline by the fitted `seconds = a * padded_tokens + b` is dropped before it
  costs anything. While much waits, a batch is not made smaller to save its most urgent text: small
  batches cost the throughput that everyone behind it needs.
- A request is admitted whole or refused whole, with the time after which it would fit.

Earliest deadline first and early drop are textbook (Liu and Layland, 1973; Shen et al., Nexus,
SOSP 2019); `bench/scheduling.py` replays loads through this class and prints what each policy
makes of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from raglan.errors import Overloaded
from raglan.scheduling.latency import LatencyModel
from raglan.scheduling.packing import pack
from raglan.scheduling.work import Batch, FlushReason, Item, Lane, Limits

PREFETCH: Final = 1
"""Batches handed out beyond those that run."""

SLACK: Final = 1.5
"""The wait that is expected counts so much at admission. Without it an overloaded queue grows until
all it holds is answered at the last moment, and half of that a moment too late. A queue as short as
two thirds of the deadlines keeps the device as busy at an even rate, and less so between bursts."""

PATIENCE_S: Final = 2.0
"""Work that has waited so long is as urgent as work due now, however far its own deadline is:
else callers with time to spare would wait until they have none, while others keep coming."""

_MIN_RETRY_S: Final = 0.05


def _rank(item: Item) -> tuple[float, int]:
    return item.urgent_at, item.sequence


def _urgent_at(expires_at: float, now: float) -> float:
    return min(expires_at, now + PATIENCE_S)


class Scheduler:
    """The queue of one pool of streams. `now` is any monotonic clock, in seconds."""

    def __init__(self, limits: Limits, latency: LatencyModel) -> None:
        self.limits = limits
        self.latency = latency
        self._lanes: dict[Lane, list[Item]] = {lane: [] for lane in Lane}
        self._tokens = dict.fromkeys(Lane, 0)
        self.out: list[Batch] = []
        """Handed out and not ended, in that order: the first `streams` of them run."""
        self._late: list[Item] = []
        self._sequence = 0
        self._credit = 0.0
        self._last_lane = Lane.INTERACTIVE
        self._progress_at = 0.0

    # --- Events -----------------------------------------------------------------------------------

    def check(self, count: int, tokens: int, lane: Lane, expires_at: float, now: float) -> None:
        """Check that a request of `count` items and `tokens` in all would be admitted now.

        Raises:
            Overloaded: not all of them have room, or the work ahead would outlast their deadline.
        """
        waiting = self.waiting_in(lane)
        if waiting + count > self.limits.waiting_items:
            raise Overloaded(
                f"{waiting} texts wait already and {count} more would pass the limit of "
                f"{self.limits.waiting_items}.",
                retry_after_s=max(_MIN_RETRY_S, self.backlog_s(now)),
            )
        late_by_s = self._late_by_s(tokens, lane, expires_at, now)
        # An idle device always tries: an estimate that is wrong can then be unlearnt.
        if late_by_s > 0 and not self.is_idle:
            raise Overloaded(
                f"The work ahead would outlast the deadline by {late_by_s:.3f} s.",
                retry_after_s=max(_MIN_RETRY_S, late_by_s),
            )

    def fitting(self, tokens: Sequence[int], lane: Lane, expires_at: float, now: float) -> int:
        """Return the number of items, from the first, that fit before `expires_at`.

        At least one where the device is idle: what is never tried is never unlearnt.

        Args:
            tokens: of each item.
            lane: priority lane.
            expires_at: deadline on the same clock as `now`.
            now: time on the caller's clock, in seconds.
        """
        wait_s = self._wait_s(lane, expires_at, now)
        left_s = (expires_at - now - self.limits.margin_s) / SLACK - wait_s
        room = max(0, self.limits.waiting_items - self.waiting_in(lane))
        spent = widest = fit = 0
        for each in tokens[:room]:
            width = self.limits.padded(each)
            spent, widest = spent + width, max(widest, width)
            shared_s = spent * self.latency.seconds_per_token / self.limits.streams
            # However many streams there are, the widest item runs on one.
            if max(shared_s, self.latency.seconds(widest)) > left_s:
                break
            fit += 1
        return max(fit, min(1, len(tokens))) if self.is_idle else fit

    def submit(self, items: Sequence[Item], now: float) -> None:
        """Let `items` wait: one request, so of one lane and one deadline. All of them or none.

        Raises what `check` raises.
        """
        tokens = sum(self._width(item) for item in items)
        lane, expires_at = items[0].lane, items[0].expires_at
        self.check(len(items), tokens, lane, expires_at, now)
        is_trial = self.is_idle and self._late_by_s(tokens, lane, expires_at, now) > 0
        for item in items:
            item.is_trial = is_trial
            item.urgent_at = _urgent_at(expires_at, now)
            item.sequence = self._sequence = self._sequence + 1
            self._add(item)

    def cancel(self, item: Item) -> None:
        """Cancel `item`. One that was handed out may run all the same."""
        if item.waiting:
            self._remove(item)

    def next_batch(self, now: float) -> Batch | None:
        """A batch to hand out, or None when nothing waits or enough is out. Ask until None."""
        while len(self.out) < self.limits.streams + PREFETCH:
            lane = self._next_lane()
            if lane is None:
                return None
            start = self._free_at(now)
            batch = self._form(lane, now, start)
            if batch is None:
                continue
            self._charge(batch)
            batch.ends_at = start + batch.seconds
            if not self.out:
                self._progress_at = now
            self.out.append(batch)
            return batch
        return None

    def pop_late(self) -> list[Item]:
        """Return the items dropped since the last call because they would miss their deadline."""
        late, self._late = self._late, []
        return late

    def ahead(self) -> Batch | None:
        """The batch handed out beyond those that run, if any: the one that may be taken back."""
        return self.out[-1] if len(self.out) > self.limits.streams else None

    def retract(self, batch: Batch) -> None:
        """`batch` has not begun and will not: its items wait again."""
        self.out.remove(batch)
        self._credit = batch.credit
        self._last_lane = self.out[-1].lane if self.out else Lane.INTERACTIVE
        for item in batch.items:
            self._add(item)

    def finished(
        self, batch: Batch, seconds: float, now: float, *, ran: Sequence[Item] | None = None
    ) -> None:
        """`batch` took `seconds`.

        Args:
            batch: the batch that ran.
            seconds: duration of the batch.
            now: time on the caller's clock, in seconds.
            ran: the items that were run, where some had been cancelled before it began.
        """
        tokens = batch.padded_tokens
        if ran is not None and len(ran) < len(batch.items):
            tokens = len(ran) * max((self._width(item) for item in ran), default=0)
        if tokens:
            self.latency.observe(tokens, seconds)
        self.failed(batch, now)

    def failed(self, batch: Batch, now: float) -> None:
        """`batch` ended and says nothing about speed."""
        self.out.remove(batch)
        self._progress_at = now
        if len(self.out) >= self.limits.streams:
            begins = self.out[self.limits.streams - 1]
            begins.ends_at = now + begins.seconds

    def shrink(self, tokens: int) -> None:
        """A batch of `tokens` was too large for the device: later ones hold half as many."""
        halved = max(1, tokens // 2)
        if halved < self.limits.batch_tokens:
            self.limits = replace(self.limits, batch_tokens=halved)

    def clear(self) -> list[Item]:
        """Take out all that waits."""
        items = [item for queue in self._lanes.values() for item in queue]
        for item in items:
            self._remove(item)
        return items

    # --- Readings ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return sum(map(len, self._lanes.values()))

    @property
    def is_idle(self) -> bool:
        """Return whether nothing runs and nothing waits."""
        return not self.out and not self.waiting

    def waiting_in(self, lane: Lane) -> int:
        """Items that wait in `lane`."""
        return len(self._lanes[lane])

    def backlog_s(self, now: float) -> float:
        """Seconds until all that is here would be done at the speed measured so far."""
        queued = sum(self._tokens.values()) * self.latency.seconds_per_token
        return (queued + self._unfinished_s(now)) / self.limits.streams

    def stalled_s(self, now: float) -> float:
        """Seconds since anything finished, while something should; 0 when idle."""
        return now - self._progress_at if self.out else 0.0

    # --- Inside -----------------------------------------------------------------------------------

    def _next_lane(self) -> Lane | None:
        queries, bulk = self._lanes[Lane.INTERACTIVE], self._lanes[Lane.BULK]
        if not queries or not bulk:
            self._credit = 0.0
            return Lane.INTERACTIVE if queries else Lane.BULK if bulk else None
        owed = self._credit >= self._width(bulk[0])
        return Lane.BULK if owed and self._last_lane is not Lane.BULK else Lane.INTERACTIVE

    def _charge(self, batch: Batch) -> None:
        """Keep account of what bulk is owed while both lanes wait."""
        batch.credit = self._credit
        self._last_lane = batch.lane
        if batch.lane is Lane.BULK:
            self._credit -= batch.padded_tokens
        elif self._lanes[Lane.BULK]:
            share = self.limits.bulk_share
            self._credit += batch.padded_tokens * share / (1 - share)

    def _form(self, lane: Lane, now: float, start: float) -> Batch | None:
        """The next batch of `lane` if it begins at `start`; None once all of it was too late."""
        queue = self._lanes[lane]
        limits = self.limits
        estimate = bool(self.out)
        dropped = False
        while queue:
            head = queue[0]
            estimated = estimate and not head.is_trial
            earliest = start + self._seconds(head) if estimated else now
            if head.expires_at <= earliest:
                self._drop([head])
                dropped = True
                continue
            cap, items = self._caps(lane, start)
            picked, padded, closed = pack(
                queue[: limits.window],
                tokens=cap,
                items=items,
                overhead_tokens=max(self.latency.overhead_tokens, 1.0),
                padded=limits.padded,
            )
            seconds = self.latency.seconds(padded)
            ends_at = start + seconds + limits.margin_s
            late = [
                item
                for item in picked
                if estimate and not item.is_trial and item.expires_at <= ends_at
            ]
            if late and len(picked) > 1:
                self._drop(late)
                dropped = True
                continue
            if dropped or (closed is FlushReason.TOKEN_CAP and cap < limits.batch_tokens):
                closed = FlushReason.DEADLINE
            elif closed is FlushReason.ITEM_CAP and items < limits.batch_items:
                closed = FlushReason.IDLE
            for item in picked:
                self._remove(item)
            return Batch(picked, lane, padded, closed, seconds)
        return None

    def _caps(self, lane: Lane, start: float) -> tuple[int, int]:
        """Padded tokens and items that the next batch of `lane` may hold."""
        limits = self.limits
        queue = self._lanes[lane]
        # Streams that are idle share what waits.
        idle = max(1, limits.streams - len(self.out))
        items = max(1, min(limits.batch_items, -(-len(queue) // idle)))
        crowded = self._tokens[lane] > 2 * limits.streams * limits.batch_tokens
        if crowded:
            return limits.batch_tokens, items
        in_time = self.latency.tokens_within(queue[0].expires_at - limits.margin_s - start)
        return min(limits.batch_tokens, in_time), items

    def _width(self, item: Item) -> int:
        return self.limits.padded(item.tokens)

    def _seconds(self, item: Item) -> float:
        alone = self.latency.seconds(self._width(item))
        return alone + self.limits.margin_s

    def _free_at(self, now: float) -> float:
        """Return the start time of the next batch."""
        running = self.out[: self.limits.streams]
        if len(running) < self.limits.streams:
            return now
        return max(now, min(batch.ends_at for batch in running))

    def _unfinished_s(self, now: float) -> float:
        running, ahead = self.out[: self.limits.streams], self.out[self.limits.streams :]
        left = sum(max(0.0, batch.ends_at - now) for batch in running)
        return left + sum(batch.seconds for batch in ahead)

    def _late_by_s(self, tokens: float, lane: Lane, expires_at: float, now: float) -> float:
        """Seconds by which `tokens` would miss their deadline; below 0 when they would not."""
        own_s = tokens * self.latency.seconds_per_token / self.limits.streams
        ends_at = now + SLACK * self._wait_s(lane, expires_at, now) + own_s + self.limits.margin_s
        return ends_at - expires_at

    def _wait_s(self, lane: Lane, expires_at: float, now: float) -> float:
        """Seconds of what runs, of what is more urgent, and of bulk's share."""
        queue = self._lanes[lane]
        last = (_urgent_at(expires_at, now), self._sequence + 1)
        before = bisect_left(queue, last, key=_rank)
        ahead = self._tokens[lane] * before / len(queue) if queue else 0.0
        if lane is Lane.BULK:
            ahead += self._tokens[Lane.INTERACTIVE]
        elif self._lanes[Lane.BULK]:
            ahead /= 1 - self.limits.bulk_share
        seconds = ahead * self.latency.seconds_per_token + self._unfinished_s(now)
        return seconds / self.limits.streams

    def _add(self, item: Item) -> None:
        insort(self._lanes[item.lane], item, key=_rank)
        self._tokens[item.lane] += self._width(item)
        item.waiting = True

    def _remove(self, item: Item) -> None:
        queue = self._lanes[item.lane]
        del queue[bisect_left(queue, _rank(item), key=_rank)]
        self._tokens[item.lane] -= self._width(item)
        item.waiting = False

    def _drop(self, items: Sequence[Item]) -> None:
        for item in items:
            self._remove(item)
        self._late += items
