import json
import sys
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from history import baseline, records
from history.__main__ import main
from history.records import Figure, Record
from raglan_cli.failure import UsageFailure

OLD, NEW = "a" * 40, "b" * 40
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def run(value, commit=NEW, *, minute=0, bench="x", machine=None, day=0, **conditions):
    figure = Figure(what="took", unit="ms", value=value, better="lower")
    return Record(
        at=NOON + timedelta(days=day, minutes=minute),
        bench=bench,
        machine=machine or records.machine(),
        version="1.0",
        commit=commit,
        conditions=conditions,
        figures=(figure,),
    )


def five(value, commit, **more):
    return [run(value + n / 100, commit, minute=n + 1, **more) for n in range(5)]


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def compare(monkeypatch, capsys):
    """Run the comparison in this process."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["history", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(ended.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def history(monkeypatch, tmp_path):
    # Long ago as the runs may be by then, none is dropped.
    monkeypatch.setenv("RAGLAN_HISTORY", str(tmp_path / "history.jsonl"))

    def keep(*runs):
        for each in runs:
            records.append(each)
        return records.history_path()

    return keep


def test_a_regression_is_shown_and_ends_with_status_1(compare, history):
    history(*five(10, OLD), *five(20, NEW, day=1))
    done = compare()
    assert done.status == 1
    assert "+99.8%" in done.out
    assert "regression" in done.out
    assert f"x: {NEW[:10]} (5 runs) against {OLD[:10]} (5 runs)" in done.out


@pytest.mark.parametrize("value", [10, 5])
def test_no_change_and_an_improvement_end_with_status_0(compare, history, value):
    history(*five(10, OLD), *five(value, NEW, day=1))
    done = compare("--json")
    assert done.status == 0
    ((figure,),) = [bench["figures"] for bench in json.loads(done.out)["benches"]]
    assert figure["verdict"] == ("improvement" if value < 10 else "unchanged")


def test_too_few_runs_are_no_regression_but_are_said(compare, history):
    history(run(10, OLD), run(90, NEW, day=1))
    done = compare()
    assert done.status == 0
    assert "too few runs: 1 against 1, it takes 5 a side" in done.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--bench", "y"), "There is no run of y on this machine; there are x."),
        (("--baseline", "cafe"), "There is no run of the baseline cafe; there are runs of aaaa"),
        (("--baseline", "no such thing"), "There is no run of the baseline no such thing"),
        (("--baseline", "2001-01-01"), "There is nothing to compare. x: no run of 2001-01-01"),
        (("--baseline", "bbbb"), "x: no run that is not of the baseline among 2."),
        (("--tolerance", "-1"), "tolerance"),
    ],
)
def test_what_cannot_be_compared_ends_with_status_2_and_a_sentence(
    compare, history, words, sentence
):
    history(run(10, OLD), run(10, NEW, day=1))
    done = compare(*words)
    assert done.status == 2
    assert sentence in done.err


def test_without_any_run_the_file_and_the_machine_are_named(compare, history):
    path = history()
    done = compare()
    assert done.status == 2
    assert f"{path} holds no run of this machine" in done.err


def test_runs_of_another_machine_are_not_compared(compare, history):
    history(*five(1, OLD, machine="another"), *five(10, NEW, day=1))
    done = compare()
    assert done.status == 0
    assert "(1 run) against bbbbbbbbbb (4 runs)" in done.out


def test_a_torn_line_is_told_and_changes_nothing(compare, history):
    path = history(*five(10, OLD), *five(10, NEW, day=1))
    with path.open("a") as file:
        file.write('{"torn')
    done = compare()
    assert done.status == 0
    assert "line 11 is skipped" in done.err


def pair(runs, name, bench=None):
    ((found,), _) = baseline.pairs(runs, machine=records.machine(), baseline=name, bench=bench)
    return found


def test_last_is_the_revision_before_the_latest():
    runs = [run(1, "c" * 40), run(2, OLD, day=1), run(3, OLD, day=2), run(4, NEW, day=3)]
    found = pair(runs, "last")
    assert (found.before, found.now) == (runs[1:3], runs[3:])


def test_last_of_a_single_revision_is_the_runs_before_the_latest():
    runs = [run(1, minute=1), run(2, minute=2), run(3, minute=3)]
    found = pair(runs, "last")
    assert (found.before, found.now) == (runs[:2], runs[2:])


def test_a_date_is_the_runs_of_that_day():
    runs = [run(1, OLD), run(2, day=1), run(3, day=2)]
    assert pair(runs, "2026-11-21").before == [runs[1]]
    assert pair(runs, "2026-11-21").now == [runs[2]]


def test_runs_of_the_committed_files_stand_for_a_commit():
    """A commit is its runs with the files as committed where there are any."""
    dirty, clean = run(1, f"{OLD}+12345678"), run(2, OLD, minute=1)
    assert pair([dirty, clean, run(3, day=1)], OLD[:7]).before == [clean]
    assert pair([dirty, run(3, day=1)], OLD[:7]).before == [dirty]
    assert pair([dirty, clean, run(3, day=1)], f"{OLD}+12345678").before == [dirty]


def test_a_version_is_a_baseline_outside_of_a_checkout():
    runs = [run(1, None), run(2, day=1)]
    assert pair(runs, "1.0").before == runs[:1]


def test_runs_under_other_conditions_are_apart():
    runs = [run(1, OLD, mode="dense"), run(2, OLD, mode="hybrid"), run(3, day=1, mode="hybrid")]
    found = pair(runs, "last")
    assert (found.title, found.before, found.now) == ("x (mode hybrid)", [runs[1]], [runs[2]])


def test_a_bench_without_a_baseline_is_named_and_the_others_are_compared():
    runs = [run(1, OLD), run(2, day=1), run(9, bench="once")]
    found, left = baseline.pairs(runs, machine=records.machine(), baseline="last")
    assert [each.title for each in found] == ["x"]
    assert left == ["once: no run of last among 1."]


def test_no_history_of_this_machine_names_those_it_has():
    with pytest.raises(UsageFailure, match="it has those of another"):
        baseline.pairs([run(1, machine="another")], machine="this", baseline="last")
