from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from history import records
from history.records import Figure, Record
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def run(days_ago: float = 0, bench: str = "x") -> Record:
    figures = (Figure(what="took", unit="ms", value=1.5, better="lower", samples=(1, 2)),)
    at = NOW - timedelta(days=days_ago)
    return Record(at=at, bench=bench, machine="m", version="1", figures=figures)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "results" / "history.jsonl"


def test_what_is_appended_is_read_again(history: Path) -> None:
    records.append(run(1, "a"), history)
    records.append(run(0, "b"), history)
    assert records.read(history) == ([run(1, "a"), run(0, "b")], [])


def test_a_history_that_does_not_exist_has_no_runs(history: Path) -> None:
    assert records.read(history) == ([], [])


@pytest.mark.parametrize(
    "line",
    [
        b'{"at": "2026-11-20T00:00:00Z", "bench": "x", "fig',
        b"\xff\xfe not text",
        b'{"at": "2026-11-20T00:00:00Z", "format": 2}',
        b"[1, 2]",
        b'{"at":"2026-11-20T00:00:00Z","bench":"x","machine":"m","version":"1",'
        b'"figures":[{"what":"a","value":Infinity}]}',
    ],
)
def test_a_torn_or_foreign_line_is_skipped_with_a_sentence(history: Path, line: bytes) -> None:
    records.append(run(1), history)
    with history.open("ab") as file:
        file.write(line)
    records.append(run(0), history)
    found, (sentence,) = records.read(history)
    assert found == [run(1), run(0)]
    assert sentence.startswith(f"{history}, line 2 is skipped: ")


@given(garbage=st.binary(max_size=200))
@settings(max_examples=50)
def test_no_line_that_somebody_left_loses_a_run(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    history = tmp_path_factory.mktemp("h") / "history.jsonl"
    records.append(run(40), history)
    with history.open("ab") as file:
        file.write(garbage)
    records.append(run(0), history)
    assert records.read(history)[0] == [run(0)]


def test_runs_older_than_thirty_days_are_dropped(history: Path) -> None:
    for days in (40, 31, 29, 1):
        records.append(run(days), history)
    records.append(run(0), history)
    assert records.read(history)[0] == [run(29), run(1), run(0)]


def test_how_long_runs_are_kept_can_be_set(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_HISTORY_DAYS", "2")
    records.append(run(3), history)
    records.append(run(0), history)
    assert records.read(history)[0] == [run(0)]


@pytest.mark.parametrize("days", ["0", "-1", "thirty", "nan", "inf"])
def test_a_time_that_is_none_is_refused_and_drops_nothing(
    history: Path, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    records.append(run(1), history)
    monkeypatch.setenv("RAGLAN_HISTORY_DAYS", days)
    with pytest.raises(ValueError, match=f"RAGLAN_HISTORY_DAYS is '{days}'"):
        records.append(run(0), history)
    assert records.read(history)[0] == [run(1)]


def test_pruning_keeps_other_versions_and_drops_torn_lines(history: Path) -> None:
    """A line of another version outlives pruning and a torn one does not."""
    records.append(run(40), history)
    with history.open("ab") as file:
        file.write(b'{"format": 2}\n{"at": "20\n')
    records.append(run(0), history)
    assert history.read_bytes().startswith(b'{"format": 2}\n{"at":"2026-11-20')
    assert [each.name for each in history.parent.iterdir()] == [history.name]


def test_who_waits_too_long_for_the_lock_is_told(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_LOCK_LIMIT_S", 0.05)
    records.append(run(0), history)
    with records._locked(history.parent), pytest.raises(OSError, match="has been locked for 0.05"):
        records.append(run(0), history)


def test_samples_are_thinned_to_what_keeps_their_percentiles() -> None:
    samples = [float(n) for n in range(10_000)][::-1]
    kept = records.figure("a", "ms", 1, samples=samples).samples
    assert len(kept) == records.MAX_SAMPLES
    assert sorted(kept)[500] == pytest.approx(5_000, rel=0.01)
    assert sorted(kept)[950] == pytest.approx(9_500, rel=0.01)


def test_paired_samples_keep_their_order() -> None:
    assert records.figure("a", "", 1, samples=[3, 1, 2], paired=True).samples == (3, 1, 2)


def test_samples_of_which_one_never_came_back_are_not_kept() -> None:
    assert records.figure("a", "ms", 1, samples=[1, float("inf")]).samples == ()


def test_in_a_checkout_the_history_lies_beside_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAGLAN_HISTORY", raising=False)
    root = Path(__file__).parents[3]
    assert records.history_path() == root / "bench" / "results" / "history.jsonl"


def test_a_run_names_the_machine_and_the_commit() -> None:
    made = records.record("x", [])
    assert "Python" in made.machine
    assert made.commit is None or len(made.commit.partition("+")[0]) == 40
    assert made.revision
