"""Logs: entries whole, with their times, levels and templates."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import log_corpus
import machine
import pytest
from raglan_ingester import parsers
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.logs.entries import MAX_ENTRY_CHARS, read_log
from raglan_ingester.logs.templates import TemplateMiner
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def parse(text: str, name: str = "server.log") -> ParsedDocument:
    return parsers.parse(Source(text.encode(), name, ""), "log")


def cut(text: str, max_chars: int = 600) -> list[Chunk]:
    return chunk(parse(text), Sizes(max_chars), strategy="log")


def facts(piece: Chunk) -> dict[str, Any]:
    found: dict[str, Any] = piece.metadata["log"]
    return found


@pytest.mark.parametrize("name", log_corpus.FORMATS)
def test_entries_are_those_that_were_written(name: str) -> None:
    made = log_corpus.make(name)
    log = read_log(made.text, NOW)
    assert log is not None
    found = [made.text[entry.start : entry.end] for entry in log.entries]
    assert found == [wanted.text for wanted in made.entries]
    assert [entry.level for entry in log.entries] == [wanted.level for wanted in made.entries]
    late = [
        wanted.time - entry.time
        for entry, wanted in zip(log.entries, made.entries, strict=True)
        if entry.time is not None
    ]
    assert len(late) == len(made.entries)
    assert all(timedelta() <= each < timedelta(seconds=1) for each in late)


@pytest.mark.parametrize("name", log_corpus.FORMATS)
def test_no_entry_is_cut_in_two(name: str) -> None:
    made = log_corpus.make(name)
    pieces = cut(made.text)
    at = 0
    ends = {piece.end for piece in pieces}
    starts = {piece.start for piece in pieces}
    for wanted in made.entries:
        start = made.text.index(wanted.text, at)
        at = start + len(wanted.text)
        holders = [piece for piece in pieces if piece.start <= start and at <= piece.end]
        assert len(holders) == 1
    assert len(starts) == len(ends) == len(pieces)
    # Entries that are longer than a chunk alone exceed it.
    assert all(piece.end - piece.start <= 600 or facts(piece)["entries"] == 1 for piece in pieces)


def test_templates_group_the_entries_of_an_event() -> None:
    """Grouping accuracy: entries whose template has exactly the entries of their event."""
    right = total = 0
    for name in log_corpus.FORMATS:
        if name == "access":  # a request has no event
            continue
        made = log_corpus.make(name)
        log = read_log(made.text, NOW)
        assert log is not None
        miner = TemplateMiner()
        by_template, by_event = defaultdict(set), defaultdict(set)
        for at, (entry, wanted) in enumerate(zip(log.entries, made.entries, strict=True)):
            by_template[miner.add(entry.message).cluster_id].add(at)
            by_event[wanted.event].add(at)
        events = list(by_event.values())
        right += sum(len(found) for found in by_template.values() if found in events)
        total += len(made.entries)
    assert right / total >= 0.9


def test_errors_of_an_hour_can_be_told_by_metadata() -> None:
    made = log_corpus.make("log4j", entries=2000)
    begin, end = "2026-11-20T14:00:00", "2026-11-20T15:00:00"
    pieces = [
        piece
        for piece in cut(made.text)
        if facts(piece)["level"] in ("error", "fatal")
        and facts(piece)["to"] >= begin
        and facts(piece)["from"] < end
    ]
    found = "\n".join(made.text[piece.start : piece.end] for piece in pieces)
    wanted = [
        each for each in made.entries if each.level in ("error", "fatal") and each.time.hour == 14
    ]
    assert wanted
    assert all(each.text in found for each in wanted)
    assert " INFO " not in found


def test_a_pause_ends_a_chunk() -> None:
    lines = [f"2026-11-20 10:00:0{n} INFO tick {n}" for n in range(5)]
    lines += [f"2026-11-20 12:00:0{n} INFO tick {n}" for n in range(5)]
    assert [facts(piece)["entries"] for piece in cut("\n".join(lines), 1200)] == [5, 5]


def test_times_without_a_year_are_of_the_last_twelve_months() -> None:
    log = read_log("Dec 24 10:00:00 host app: INFO a\nNov 28 10:00:00 host app: INFO b\n", NOW)
    assert log is not None
    assert [entry.time and entry.time.year for entry in log.entries] == [2025, 2026]
    assert log.warnings == [
        "The log's times have no year; each was taken as of the last twelve months."
    ]


def test_an_endless_line_is_split_with_a_warning() -> None:
    line = "2026-11-20 10:00:00 INFO " + "x" * 100_000
    document = parse(f"{line}\n2026-11-20 10:00:01 INFO short\n")
    pieces = chunk(document, Sizes(600))
    assert document.warnings == ["1 entries are longer than 16,000 characters and were split."]
    assert max(piece.end - piece.start for piece in pieces) <= MAX_ENTRY_CHARS
    assert sum(piece.end - piece.start for piece in pieces) >= len(line)


def test_a_text_that_is_no_log_is_cut_by_structure_with_a_warning() -> None:
    document = parse("Title\n=====\n\nA paragraph.\n", "notes.txt")
    assert document.log is None
    assert len(document.warnings) == 1
    assert chunk(document, Sizes(600))[0].heading_path == ("Title",)


def test_bytes_are_refused() -> None:
    with pytest.raises(Unparsable):
        parsers.parse(Source(bytes(range(256)) * 100, "server.log", ""), "log")


def test_other_formats_keep_their_parsers() -> None:
    document = parsers.parse(Source(b"# Title\n\nText.\n", "a.md", ""), "log")
    assert (document.title, document.log) == ("Title", None)


@pytest.mark.parametrize(
    "head",
    [
        f'{{"time": 1{"0" * 400}, "msg": "a"}}',
        '{"time": 1e308, "msg": "a"}',
        '{"time": Infinity, "msg": "a"}',
        '{"time": NaN, "msg": "a"}',
        '{"time": -1, "msg": "a"}',
        '{"time": 99999999999, "msg": "a"}',
        "0000-01-01 00:00:00 a",
        "9999-12-31T23:59:59-10:00 a",
        "0001-01-01T00:00:00+10:00 a",
        "Feb 30 10:00:00 host app: a",
        "31/Dec/9999:23:59:59 -1000 a",
    ],
)
def test_a_time_that_is_none_leaves_the_entry(head: str) -> None:
    line = "2026-11-20 10:00:00 INFO b"
    log = read_log(f"{line}\n{line}\n{head}\n{head}\n{head}\n", NOW)
    assert log is not None
    assert {entry.time for entry in log.entries[2:]} <= {None}
    pieces = cut(f"{head}\n" * 5)
    assert not any("from" in facts(piece) for piece in pieces if "log" in piece.metadata)


@pytest.mark.parametrize("parts", [1, 10**3, 10**6, 10**9])
def test_epochs_are_read_by_their_size(parts: int) -> None:
    seconds = 1_795_946_400
    line = f'{{"ts": {seconds * parts}, "msg": "a"}}\n'
    log = read_log(line * 3, NOW)
    assert log is not None
    assert log.entries[0].time == datetime.fromtimestamp(seconds, UTC)


HEADS = {
    "log": "2026-11-20 10:00:00 INFO a\n" * 3 + "2026-11-20 10:00:01 ",
    "qa": "Why? ",
    "table": "| a | b |\n|---|---|\n| ",
}
HOSTILE = {
    "log": ["\n", "\n\t", "\n at a.b", '"', ' msg="\\', "0.", "[", '{"a":'],
    "qa": ["*", "# ", "_ ", "Q: ", "?"],
    "table": ["|", " "],
}


def seconds(strategy: Any, piece: str, chars: int) -> float:
    """Processor time of reading a text of `piece` repeated, and of finding where it is cut."""
    text = HEADS[strategy] + piece * (chars // len(piece)) + "!"
    begun = time.process_time()
    document = parsers.parse(Source(text.encode(), "a.log", ""), strategy)
    if strategy == "log":
        chunk(document, Sizes(600), strategy=strategy)
    return time.process_time() - begun


@pytest.mark.parametrize(
    ("strategy", "piece"), [(name, each) for name, pieces in HOSTILE.items() for each in pieces]
)
def test_a_hostile_line_takes_linear_time(strategy: Any, piece: str) -> None:
    pace = machine.slowness()
    half, whole = (seconds(strategy, piece, chars) for chars in (500_000, 1_000_000))
    assert whole < 1.0 * pace
    assert whole < max(3 * half, 0.1 * pace)
