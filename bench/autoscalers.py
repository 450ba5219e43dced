"""The formulas of Kubernetes' HorizontalPodAutoscaler and of KEDA: data in, replicas out.

No clock inside. After the documentation of `autoscaling/v2` (Horizontal Pod Autoscaling: algorithm
details, configurable scaling behavior) and of KEDA's ScaledObject.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SYNC_S: Final = 15.0
"""Period of the HorizontalPodAutoscaler's loop, the controller manager's default."""

TOLERANCE: Final = 0.1
"""Deviation from the target that changes nothing, the controller manager's default."""


def desired_for_total(total: float, target: float, replicas: int, tolerance: float) -> int:
    """Compute the replicas for an external metric with a target of kind `AverageValue`.

    Args:
        total: the metric's sum over all replicas.
        target: value that each replica may have.
        replicas: of the target's status, those that are not ready included.
        tolerance: deviation of the ratio from 1 that changes nothing.
    """
    if replicas and abs(1 - total / (target * replicas)) <= tolerance:
        return replicas
    return math.ceil(total / target - 1e-9)


def desired_for_pods(
    values: Sequence[float], target: float, unready: int, replicas: int, tolerance: float
) -> int:
    """Compute the replicas for a metric of kind `Pods`.

    Replicas without a value count as 0 where there would be more of them, and as the target where
    there would be fewer. A correction that turns the direction changes nothing.

    Args:
        values: of each replica that has one.
        target: mean value wanted.
        unready: replicas without a value.
        replicas: of the target's specification.
        tolerance: deviation of the ratio from 1 that changes nothing.
    """
    if not values:
        return replicas
    ratio = sum(values) / len(values) / target
    if not unready:
        return replicas if abs(1 - ratio) <= tolerance else math.ceil(ratio * len(values) - 1e-9)
    assumed = target if ratio < 1 else 0.0
    count = len(values) + unready
    corrected = (sum(values) + assumed * unready) / count / target
    turned = (ratio < 1 < corrected) or (corrected < 1 < ratio)
    if turned or abs(1 - corrected) <= tolerance:
        return replicas
    return math.ceil(corrected * count - 1e-9)


@dataclass(frozen=True)
class Limit:
    """One policy of `behavior`: at most so many replicas, or so many per cent, a period."""

    kind: str
    """Pods or Percent."""
    value: int
    period_s: float

    def highest(self, at_start: int) -> int:
        """Replicas allowed at the end of a period that began with `at_start`."""
        if self.kind == "Pods":
            return at_start + self.value
        return math.ceil(at_start * (1 + self.value / 100))

    def lowest(self, at_start: int) -> int:
        """Replicas that must be left at the end of a period that began with `at_start`."""
        if self.kind == "Pods":
            return max(0, at_start - self.value)
        return math.floor(at_start * (1 - self.value / 100))


@dataclass(frozen=True)
class Behavior:
    """`spec.behavior` of a HorizontalPodAutoscaler; these are its defaults."""

    up: tuple[Limit, ...] = (Limit("Percent", 100, 15), Limit("Pods", 4, 15))
    down: tuple[Limit, ...] = (Limit("Percent", 100, 15),)
    up_window_s: float = 0
    down_window_s: float = 300


class Stabiliser:
    """Turns what the metric recommends into the replicas that are set."""

    def __init__(self, behavior: Behavior, lowest: int, highest: int) -> None:
        self._behavior = behavior
        self._lowest, self._highest = lowest, highest
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def next(self, now: float, replicas: int, recommended: int) -> int:
        """Compute the replicas from `now` on.

        Args:
            now: seconds, never falling.
            replicas: that are set now.
            recommended: by the metric.
        """
        stable = self._stable(now, replicas, recommended)
        allowed = self._within_limits(now, replicas, stable)
        if allowed != replicas:
            self._changes.append((now, allowed - replicas))
        return allowed

    def _stable(self, now: float, replicas: int, recommended: int) -> int:
        behavior = self._behavior
        self._recommended.append((now, recommended))
        longest = max(behavior.up_window_s, behavior.down_window_s)
        while self._recommended[0][0] <= now - longest and len(self._recommended) > 1:
            self._recommended.popleft()
        within_up = [n for at, n in self._recommended if at > now - behavior.up_window_s]
        within_down = [n for at, n in self._recommended if at > now - behavior.down_window_s]
        least = min([recommended, *within_up])
        most = max([recommended, *within_down])
        return min(max(replicas, least), most)

    def _within_limits(self, now: float, replicas: int, wanted: int) -> int:
        behavior = self._behavior
        periods = [limit.period_s for limit in (*behavior.up, *behavior.down)]
        while self._changes and self._changes[0][0] <= now - max(periods, default=0):
            self._changes.popleft()
        if wanted > replicas:
            bounds = [
                limit.highest(replicas - self._changed(now, limit.period_s))
                for limit in behavior.up
            ]
            wanted = min(wanted, max(bounds, default=wanted))
            wanted = max(wanted, replicas)
        elif wanted < replicas:
            bounds = [
                limit.lowest(replicas - self._changed(now, limit.period_s))
                for limit in behavior.down
            ]
            wanted = max(wanted, min(bounds, default=wanted))
            wanted = min(wanted, replicas)
        return min(max(wanted, self._lowest), self._highest)

    def _changed(self, now: float, period_s: float) -> int:
        return sum(change for at, change in self._changes if at > now - period_s)


@dataclass(frozen=True)
class Activation:
    """What KEDA adds: 0 replicas while nothing is to be done."""

    threshold: float = 0.0
    """The metric must exceed it to wake the service."""
    polling_s: float = 30
    cooldown_s: float = 300
    """Time without activity after which the last replicas go."""


class ZeroScaler:
    """KEDA's part between 0 replicas and the HorizontalPodAutoscaler's first."""

    def __init__(self, activation: Activation, now: float) -> None:
        self._activation = activation
        self._active_at = now

    def next(self, now: float, replicas: int, total: float) -> int:
        """Compute the replicas after a poll at `now` that found `total` of the metric."""
        if total > self._activation.threshold:
            self._active_at = now
            return max(replicas, 1)
        if replicas and now - self._active_at >= self._activation.cooldown_s:
            return 0
        return replicas
