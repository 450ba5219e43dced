"""Rules of the comparison, tried against runs whose true change is known."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations, count

import pytest
from history.comparison import _rank_sums, compare, exact_shift, runs_needed
from history.records import Figure, Record
from hypothesis import given
from hypothesis import strategies as st

MINUTES = count()


def record(*figures):
    at = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(minutes=next(MINUTES))
    return Record(at=at, bench="x", machine="m", version="1", figures=figures)


def took(value, samples=(), **more):
    shape = {"what": "took", "unit": "ms", "better": "lower"} | more
    return record(Figure(value=value, samples=samples, **shape))


def verdict(before, now, **more):
    (change,) = compare(before, now, **more)
    return change.verdict


def timings(rng, factor=1.0, runs=5):
    """Runs whose medians scatter by 3 %."""
    return [took(10 * factor * rng.lognormvariate(0, 0.03)) for _ in range(runs)]


def median_run(rng, factor=1.0, n=200):
    samples = sorted(10 * factor * rng.lognormvariate(0, 0.3) for _ in range(n))
    return [took(samples[n // 2 - 1], samples, statistic="p50")]


def share_of(seeds, judged):
    return sum(judged(random.Random(seed)) for seed in seeds) / len(seeds)


def test_runs_that_became_slower_are_found():
    def found(rng):
        return verdict(timings(rng), timings(rng, 1.3)) == "regression"

    assert share_of(range(200), found) >= 0.99


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_runs_that_did_not_change_raise_few_false_alarms(tolerance):
    def alarmed(rng):
        return verdict(timings(rng), timings(rng), tolerance=tolerance) == "regression"

    # Half of 1 % by construction; 12 of 1,000 are three standard deviations more.
    assert share_of(range(1_000), alarmed) <= 0.012


def test_samples_that_became_slower_are_found():
    def found(rng):
        return verdict(median_run(rng), median_run(rng, 1.3)) == "regression"

    assert share_of(range(40), found) >= 0.95


@pytest.mark.slow
def test_samples_that_did_not_change_raise_few_false_alarms():
    def alarmed(rng):
        return verdict(median_run(rng), median_run(rng)) == "regression"

    assert share_of(range(100), alarmed) <= 0.02


def test_answers_to_the_same_questions_show_a_small_loss():
    rng = random.Random(1)
    before = [rng.choice((0.0, 0.5, 1.0)) for _ in range(300)]
    now = [score if rng.random() > 0.2 else score / 2 for score in before]
    quality = {"what": "nDCG@10", "unit": "", "better": "higher", "paired": True}
    runs = [took(sum(scores) / 300, scores, **quality) for scores in (before, now)]
    ((change,), (unpaired,)) = (
        compare(runs[:1], runs[1:]),
        compare([took(0, before, **quality | {"paired": False})], [took(0, now, **quality)]),
    )
    assert (change.verdict, change.interval.method) == ("regression", "paired bootstrap")
    assert unpaired.interval.low < change.interval.low


def test_the_same_answers_are_unchanged_to_the_last_digit():
    scores = [0.0, 0.5, 1.0] * 100
    runs = [took(0.5, scores, better="higher", paired=True) for _ in range(2)]
    (change,) = compare(runs[:1], runs[1:], tolerance=0)
    assert (change.verdict, change.interval.low, change.interval.high) == ("unchanged", 0, 0)


@given(
    before=st.lists(st.floats(1, 100), min_size=5, max_size=8),
    factor=st.floats(0.2, 5),
    tolerance=st.floats(0, 0.5),
)
def test_better_in_one_direction_is_worse_in_the_other(before, factor, tolerance):
    now = [value * factor for value in before]
    found = {
        better: verdict(
            [took(v, better=better) for v in before],
            [took(v, better=better) for v in now],
            tolerance=tolerance,
        )
        for better in ("lower", "higher")
    }
    mirror = {"regression": "improvement", "improvement": "regression", "unchanged": "unchanged"}
    assert found["higher"] == mirror[found["lower"]]


@given(
    old=st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=10),
    new=st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=10),
)
def test_the_exact_interval_is_symmetric_and_holds_its_estimate(old, new):
    """The exact interval holds its estimate and turns round with its sides."""
    there, back = exact_shift(old, new), exact_shift(new, old)
    assert there.low <= there.estimate <= there.high
    assert (back.low, back.high) == (-there.high, -there.low)


def test_the_exact_interval_is_that_of_the_tables():
    # Wilcoxon's tables: for 5 and 5 values U <= 2 has probability 4 / 252, so at 95 % the third.
    old, new = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]
    differences = sorted(b - a for a in old for b in new)
    found = exact_shift(old, new, 0.95)
    assert (found.low, found.high) == (differences[2], differences[-3])


@pytest.mark.parametrize(("n", "m"), [(1, 3), (3, 4), (2, 6), (5, 5)])
def test_the_orders_of_two_groups_are_counted_as_by_writing_them_down(n, m):
    written = Counter(
        sum(place - rank for rank, place in enumerate(places))
        for places in combinations(range(n + m), n)
    )
    assert _rank_sums(n, m) == [written[u] for u in range(n * m + 1)]


def test_one_outlier_among_the_runs_is_no_regression():
    before = [took(10 + n / 10) for n in range(6)]
    assert verdict(before, [*before[:5], took(500)]) == "unchanged"


@pytest.mark.parametrize(("confidence", "runs"), [(0.99, 5), (0.95, 4), (0.999, 7)])
def test_too_few_runs_are_said_to_be_too_few(confidence, runs):
    assert runs_needed(confidence) == runs
    values = range(runs - 1)
    (change,) = compare(
        [took(10 + n / 10) for n in values], [took(20 + n) for n in values], confidence=confidence
    )
    assert (change.interval, change.verdict) == (None, "unknown")
    assert f"it takes {runs} a side" in change.note


def test_a_percentile_of_which_few_samples_tell_has_no_interval():
    samples = [float(n) for n in range(200)]
    (change,) = compare(
        [took(198, samples, statistic="p99")], [took(398, samples, statistic="p99")]
    )
    assert change.interval is None


def test_a_figure_of_no_direction_is_shown_and_never_a_regression():
    rng = random.Random(3)
    before, now = (
        [took(each.figures[0].value, better=None) for each in timings(rng, factor)]
        for factor in (1, 3)
    )
    (change,) = compare(before, now)
    assert change.verdict == "unknown"
    assert change.interval.low > 0


def test_a_change_within_the_tolerance_is_none():
    before, now = ([took(value + n / 100) for n in range(5)] for value in (10, 10.3))
    assert verdict(before, now, tolerance=0.05) == "unchanged"
    assert verdict(before, now, tolerance=0.01) == "regression"


def test_new_failures_are_a_regression_at_any_tolerance():
    """Failures where there were none are a regression whatever the tolerance."""
    assert verdict([took(0)] * 5, [took(3)] * 5, tolerance=0.5) == "regression"


def test_a_value_that_comes_back_no_more_is_a_regression():
    assert verdict([took(1.0)], [took(None)]) == "regression"
    assert verdict([took(None)], [took(1.0)]) == "unknown"
    assert verdict([took(1.0)], [took(None, better=None)]) == "unknown"


def test_only_figures_of_both_sides_are_compared():
    old, new = Figure(what="old", value=1), Figure(what="new", value=1)
    both = Figure(what="both", value=1)
    assert [c.what for c in compare([record(old, both)], [record(new, both)])] == ["both"]
