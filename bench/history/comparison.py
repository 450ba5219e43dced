"""Comparison of a figure between runs, with a confidence interval.

Three methods, the first that the runs allow:

- paired bootstrap, where each run answered the same questions: percentile interval of the mean
  difference a question (Smucker, Allan and Carterette, CIKM 2007, compare such tests for search);
- exact shift, where there are enough runs: the interval of Hodges and Lehmann (Annals of
  Mathematical Statistics 34, 1963) that the Mann-Whitney statistic bounds. It assumes no
  distribution, an outlier cannot widen it much, and it knows what too few runs cannot tell: of
  99 %, five a side;
- bootstrap over samples: percentile interval (Efron and Tibshirani, 1993, chapter 13) of the
  difference, resampling runs and then each run's samples (Davison and Hinkley, 1997, section 3.8).
  Of one run a side it holds the spread within that run alone; what else went on is not in it.

A figure that did not change shows a false regression in at most half of 1 - confidence by the
exact interval; by the bootstraps in about that (0.5 to 0.8 % of 400 trials each, at 99 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Literal

from history.records import Better, Figure, Record

CONFIDENCE: Final = 0.99
TOLERANCE: Final = 0.05

_MOST_RUNS: Final = 50
"""The latest of a side; the exact interval's cost grows with their square."""

Verdict = Literal["regression", "improvement", "unchanged", "unknown"]


@dataclass(frozen=True, slots=True)
class Interval:
    """By how much a figure changed, in its unit."""

    low: float
    estimate: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, before and now: medians over the runs; None where no value came back."""

    what: str
    unit: str
    better: Better | None
    before: float | None
    now: float | None
    runs: tuple[int, int]
    interval: Interval | None
    verdict: Verdict
    note: str

    @property
    def document(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return asdict(self)


def compare(
    before: Sequence[Record],
    now: Sequence[Record],
    *,
    tolerance: float = TOLERANCE,
    confidence: float = CONFIDENCE,
) -> list[Change]:
    """Each figure of `now` that `before` has too, in the order of the latest run.

    Args:
        before: runs of one bench on one machine under the same conditions, as are those of `now`.
        now: runs to compare.
        tolerance: the share of the figure before that a change may be without being one.
        confidence: level of the interval, in (0, 1).
    """
    known, found = _by_name(before), _by_name(now)
    return [
        _change(known[name], figures, tolerance, confidence)
        for name, figures in found.items()
        if name in known
    ]


def _by_name(runs: Sequence[Record]) -> dict[tuple[str, str], list[Figure]]:
    """(what, unit) -> the figure of each run that has it, the latest run first."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for run in sorted(runs, key=lambda run: run.at, reverse=True)[:_MOST_RUNS]:
        # Of two figures with one name the first counts: they could not be distinguished later.
        figures = {(each.what, each.unit): each for each in reversed(run.figures)}
        for name in dict.fromkeys((each.what, each.unit) for each in run.figures):
            found.setdefault(name, []).append(figures[name])
    return found


def _change(
    before: Sequence[Figure], now: Sequence[Figure], tolerance: float, confidence: float
) -> Change:
    latest = now[0]
    old, new = ([each.value for each in some if each.value is not None] for some in (before, now))
    interval: Interval | None = None
    verdict: Verdict = "unknown"
    note = ""
    if old and not new:
        verdict = "regression" if latest.better else "unknown"
        note = "no value comes back any more"
    elif not old:
        note = "there was no value to compare with"
    else:
        interval, note = _interval(before, now, old, new, confidence)
        verdict = _verdict(interval, latest.better, tolerance * abs(median(old)))
    return Change(
        what=latest.what,
        unit=latest.unit,
        better=latest.better,
        before=median(old) if old else None,
        now=median(new) if new else None,
        runs=(len(before), len(now)),
        interval=interval,
        verdict=verdict,
        note=note if latest.better else "; ".join(filter(None, ["no direction is better", note])),
    )


def _verdict(interval: Interval | None, better: Better | None, tolerated: float) -> Verdict:
    if interval is None or better is None:
        return "unknown"
    worse, gained = (
        (interval.low, -interval.high) if better == "lower" else (-interval.high, interval.low)
    )
    if worse > tolerated:
        return "regression"
    return "improvement" if gained > tolerated else "unchanged"


def _interval(
    before: Sequence[Figure],
    now: Sequence[Figure],
    old: Sequence[float],
    new: Sequence[float],
    confidence: float,
) -> tuple[Interval | None, str]:
    """The interval, or why there is none."""
    from history import resampling

    if found := resampling.paired(before, now, confidence):
        return Interval(*found, "paired bootstrap"), ""
    if shift := exact_shift(old, new, confidence):
        return shift, ""
    if found := resampling.unpaired(before, now, confidence):
        return Interval(*found, "bootstrap"), f"of {len(before)} against {len(now)} runs"
    need = runs_needed(confidence)
    return None, f"too few runs: {len(old)} against {len(new)}, it takes {need} a side"


def runs_needed(confidence: float) -> int:
    """Runs a side from which an exact interval exists."""
    runs = 1
    while 1 / math.comb(2 * runs, runs) > (1 - confidence) / 2:
        runs += 1
    return runs


def exact_shift(
    old: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE
) -> Interval | None:
    """The shift from `old` to `new`; None where there are too few of them for `confidence`."""
    allowed = (1 - confidence) / 2 * math.comb(len(old) + len(new), len(old))
    cut, tail = 0, 0
    for count in _rank_sums(len(old), len(new)):
        tail += count
        if tail > allowed:
            break
        cut += 1
    if cut == 0:
        return None
    differences = sorted(b - a for a in old for b in new)
    low, high = differences[cut - 1], differences[-cut]
    return Interval(low, median(differences), high, "exact shift")


def _rank_sums(n: int, m: int) -> list[int]:
    """In how many orders of n + m values the Mann-Whitney statistic is 0, 1, ... n * m.

    The coefficients of the Gaussian binomial, product of (1 - q^(m + i)) / (1 - q^i).
    """
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for at in range(n * m, m + i - 1, -1):
            counts[at] -= counts[at - m - i]
        for at in range(i, n * m + 1):
            counts[at] += counts[at - i]
    return counts
