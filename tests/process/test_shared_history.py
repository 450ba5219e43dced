"""One history of benchmark runs, written by several processes at once."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from history import records
from history.records import Figure, Record

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def run(days_ago: float, bench: str) -> Record:
    at = NOW - timedelta(days=days_ago)
    figures = (Figure(what="took", unit="ms", value=1.5, better="lower"),)
    return Record(at=at, bench=bench, machine="m", version="1", figures=figures)


def _append_many(path: Path, name: str) -> None:
    for days in (40, *[0] * 30):  # an old one each time makes every process prune
        records.append(run(days, name), path)


def test_no_run_is_lost_when_several_processes_append_and_prune(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(history, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    found, skipped = records.read(history)
    assert skipped == []
    recent = [each.bench for each in found if each.at == NOW]
    assert {name: recent.count(name) for name in "abc"} == {"a": 30, "b": 30, "c": 30}
