from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import report
from history import records
from report import Row


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setenv("RAGLAN_HISTORY", str(tmp_path / "history.jsonl"))
    return tmp_path


def published(folder: Path, name: str) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads((folder / f"{name}.json").read_text(), parse_constant=refuse)
    rows: list[dict[str, object]] = found["rows"]
    return rows


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_figure_that_never_came_back_is_null_with_a_note(results: Path, value: float) -> None:
    report.publish("x", [Row("back after", "s", value, "<= 15", note="baseline 70 ms")])
    (row,) = published(results, "x")
    assert row["ours"] is None
    assert row["note"] == "baseline 70 ms; ours: no value came back"
    assert row["met"] is False


def test_a_peer_that_never_came_back_is_null_too(results: Path) -> None:
    report.publish("x", [Row("p99", "ms", 20, "ratio <= 1", math.inf, "peer")])
    (row,) = published(results, "x")
    assert (row["peer"], row["met"], row["note"]) == (None, True, "peer: no value came back")


def test_what_was_published_is_read_and_published_again_as_it_was(results: Path) -> None:
    report.publish("x", [Row("a", "s", math.inf, "<= 1"), Row("b", "ms", 1.5, note="n")])
    before = published(results, "x")
    report.publish("x", report.rows_of("x"))
    assert published(results, "x") == before


def test_each_publication_adds_a_run_to_the_history(results: Path) -> None:
    report.publish("x", [Row("took", "ms", 2.0, samples=[1, 2, 3], statistic="p50")])
    report.publish("x", [Row("nDCG@10", "", 0.7, ">= 0.6"), Row("gone", "", math.inf)])
    runs, skipped = records.read()
    assert skipped == []
    assert [run.bench for run in runs] == ["x", "x"]
    ((took,), (ndcg, gone)) = (run.figures for run in runs)
    assert (took.value, took.samples, took.statistic, took.better) == (2, (1, 2, 3), "p50", "lower")
    assert (ndcg.better, gone.better, gone.value) == ("higher", None, None)


def test_only_what_was_measured_in_this_run_is_kept(results: Path) -> None:
    new = Row("new", "s", 1)
    report.publish("x", [Row("old", "s", 1), new], measured=[new])
    ((run,), _) = records.read()
    assert [each.what for each in run.figures] == ["new"]


def test_a_history_that_cannot_be_written_costs_no_figures(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "file").write_text("")
    monkeypatch.setenv("RAGLAN_HISTORY", str(results / "file" / "history.jsonl"))
    report.publish("x", [Row("a", "s", 1)])
    assert published(results, "x")[0]["ours"] == 1
    assert "This run is not kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "unit", "better"),
    [
        ("<= 20", "", "lower"),
        ("ratio >= 5", "ms", "higher"),
        (None, "ms", "lower"),
        (None, "tokens/s", "higher"),
        (None, "share", None),
    ],
)
def test_the_target_says_what_is_better_and_else_the_unit(
    target: str | None, unit: str, better: str | None
) -> None:
    row = Row("a", unit, 1, target)
    assert records.figure(row.what, row.unit, row.ours, row.better).better == better


@pytest.mark.parametrize("name", sorted(p.name for p in report.RESULTS.glob("*.json")))
def test_what_is_published_in_the_repository_is_strict_json(name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    committed = Path(report.__file__).parent / "results" / name
    json.loads(committed.read_text(), parse_constant=refuse)


def test_an_evaluation_is_kept_with_its_conditions_and_measurements(results: Path) -> None:
    found = {
        "corpus": "abc",
        "queries": 2,
        "mode": "hybrid",
        "rerank": True,
        "samples": {
            "mrr_at_10": [0.5, 1 / 3],
            "over_three_sentences": [0, 1],
            "search_ms": [3.0, 1.0],
        },
    }
    report.keep_evaluation("scifact", found)
    ((run,), _) = records.read()
    assert run.bench == "eval-scifact"
    assert run.conditions == {"corpus": "abc", "queries": "2", "mode": "hybrid", "rerank": "on"}
    figures = {figure.what: figure for figure in run.figures}
    assert figures["mrr_at_10"].samples == (0.5, 0.33333)
    assert (figures["mrr_at_10"].better, figures["mrr_at_10"].paired) == ("higher", True)
    assert figures["over_three_sentences"].better == "lower"
    assert (figures["search, p50"].value, figures["search, p95"].value) == (1.0, 3.0)
