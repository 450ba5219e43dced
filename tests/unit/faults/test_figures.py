"""What the fault matrix makes of the requests that it saw."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from faults import figures
from faults.open_loop import Record


def records(
    start: float, end: float, *, took_s: float = 0.1, outcome: str = "ok", kind: str = "search"
) -> list[Record]:
    """Twenty a second."""
    return [
        Record(start + n / 20, kind, "default", took_s=took_s, outcome=outcome)
        for n in range(int((end - start) * 20))
    ]


def recovered(*found: list[Record]) -> float:
    later = [record for each in found for record in each]
    return figures.recovered_s(later, 100.0, records(0, 10), window_s=2)


def test_a_mesh_that_was_never_harmed_has_recovered_at_once() -> None:
    assert recovered(records(100, 110)) == 0


@pytest.mark.parametrize("harm", [{"outcome": "refused"}, {"took_s": 0.2}])
def test_recovery_begins_where_the_harm_ends(harm: dict[str, object]) -> None:
    assert recovered(records(100, 105, **harm), records(105, 110)) == pytest.approx(5, abs=0.3)  # type: ignore[arg-type]


def test_degraded_answers_are_no_recovery() -> None:
    degraded = records(100, 110)
    for record in degraded:
        record.degraded = ["rerank:fused_order"]
    assert recovered(degraded) == math.inf


def test_a_load_that_ended_with_the_fault_shows_no_recovery() -> None:
    assert recovered(records(95, 101)) == math.inf


def test_searches_do_not_hide_behind_slow_answers() -> None:
    baseline = records(0, 10) + records(0, 10, took_s=5, kind="query")
    slower = records(20, 30, took_s=0.4) + records(20, 30, took_s=5, kind="query")
    assert figures.slowdown(slower, baseline) == pytest.approx(4)


def test_percentiles_are_values_that_were_seen() -> None:
    assert figures.quantile(range(1, 101), 0.99) == 100
    assert figures.quantile([3.0], 0.99) == 3
    assert math.isnan(figures.quantile([], 0.5))


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    (record,) = records(0, 0.05)
    path.write_text(json.dumps(asdict(record)) + '\n{"at": 1.0, "ki')
    assert figures.read(path) == [record]
    assert figures.read(tmp_path / "none") == []


def test_reasons_are_counted_the_most_frequent_first() -> None:
    found = records(0, 1, outcome="late") + records(0, 2, outcome="reset") + records(0, 1)
    assert figures.reasons(found) == "40 x search reset; 20 x search late"
