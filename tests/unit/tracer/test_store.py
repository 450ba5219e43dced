"""The file of traces: what it holds, what it lets go, and what happens when it is broken."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from raglan.v1.traces_pb2 import ListTracesRequest
from raglan_tracer import store as store_module
from raglan_tracer.store import QUEUE, Summary, TraceStore

ALL = ListTracesRequest(limit=50)


def summary(number: int, **fields: Any) -> Summary:
    known: dict[str, Any] = {
        "trace_id": number.to_bytes(16, "big"),
        "route": "/v1/query",
        "name": "POST /v1/query",
        "status": 200,
        "error": False,
        "degraded": False,
        "hedged": False,
        "retried": False,
        "start_ns": number,
        "duration_ms": float(number),
        "reasons": "sampled",
        "spans": 1,
        "dropped": 0,
        "complete": True,
        "missing": "",
    }
    return Summary(**known | fields)


@asynccontextmanager
async def opened(
    path: Path | None, *, newest: int = 100, max_bytes: int = 1 << 20
) -> AsyncIterator[TraceStore]:
    store = TraceStore(path, newest=newest, max_bytes=max_bytes)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def numbers(store: TraceStore, **wanted: Any) -> list[int]:
    return [
        int(each.duration_ms)
        for _, each in await store.newest(ListTracesRequest(**{"limit": 50} | wanted))
    ]


async def test_what_is_written_is_read_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "traces.sqlite"
    async with opened(path) as store:
        store.put([(summary(1, error=True, missing="a:1,b:2"), b"spans")])
    async with opened(path) as store:
        found = await store.get([summary(1).trace_id])
        assert not store.in_memory
    assert found == {summary(1).trace_id: (summary(1, error=True, missing="a:1,b:2"), b"spans")}


async def test_a_trace_that_is_written_again_is_replaced_in_its_place(tmp_path: Path) -> None:
    async with opened(tmp_path / "t") as store:
        store.put([(summary(1), b"few"), (summary(2), b"")])
        store.put([(summary(1, spans=9), b"many")])
        assert (await store.get([summary(1).trace_id]))[summary(1).trace_id][1] == b"many"
        assert await numbers(store) == [2, 1]


async def test_the_newest_stay_and_the_oldest_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "t", newest=10) as store:
        for first in range(0, 50, 5):
            store.put([(summary(first + each), b"x") for each in range(5)])
        assert await numbers(store) == list(range(49, 39, -1))


async def test_bytes_are_bounded_as_well(tmp_path: Path) -> None:
    async with opened(tmp_path / "t", max_bytes=50_000) as store:
        for number in range(20):
            store.put([(summary(number), os.urandom(10_000))])
        left = await numbers(store)
    assert left[0] == 19
    assert len(left) <= 5


async def test_a_list_has_what_was_asked_for_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with opened(tmp_path / "t") as store:
        store.put([(summary(n, error=n % 2 == 0, status=500 + n % 2), b"") for n in range(10)])
        assert await numbers(store, error=True) == [8, 6, 4, 2, 0]
        assert await numbers(store, status=501, min_duration_ms=4.5) == [9, 7, 5]
        assert await numbers(store, route="/v1/search") == []
        assert await numbers(store, degraded=True) == []
        first = await store.newest(ListTracesRequest(limit=4))
        assert await numbers(store, limit=2, before=first[-1][0]) == [5, 4]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "traces.sqlite"
    path.write_bytes(content)
    async with opened(path) as store:
        store.put([(summary(1), b"x")])
        assert await numbers(store) == [1]
        assert not store.in_memory
    if content:
        assert path.with_name("traces.sqlite.damaged").read_bytes() == content


async def test_a_file_of_another_version_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    async with opened(path) as store:
        store.put([(summary(1), b"x")])
        assert await numbers(store) == [1]
    assert path.with_name("traces.sqlite.damaged").exists()


async def test_a_file_that_cannot_be_made_leaves_the_traces_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "traces.sqlite", tmp_path):
        async with opened(path) as store:
            store.put([(summary(1), b"x")])
            assert await numbers(store) == [1]
            assert store.in_memory


async def test_damage_in_the_middle_costs_no_more_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    async with opened(path, newest=1_000) as store:
        store.put([(summary(n), os.urandom(2_000)) for n in range(200)])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    async with opened(path) as store:
        for number in range(3):
            store.put([(summary(number), b"x")])
            await store.newest(ALL)
        store.put([(summary(9), b"x")])
        assert 9 in await numbers(store)


async def test_a_full_disk_drops_and_counts_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "t") as store:
        store.put([(summary(1), b"x")])
        await store.newest(ALL)
        assert store._file is not None
        store._file._database.execute("PRAGMA max_page_count = 1")
        store.put([(summary(2), os.urandom(100_000))])
        assert await numbers(store) == [1]
        assert store.dropped == 1
        store._file._database.execute("PRAGMA max_page_count = 100000")
        store.put([(summary(3), b"x")])
        assert await numbers(store) == [3, 1]


async def test_what_is_more_than_the_queue_holds_is_dropped_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path / "t", newest=10_000) as store:
        free = threading.Event()
        store._thread.submit(free.wait)
        try:
            for first in range(0, QUEUE, 100):
                store.put([(summary(first + each), b"") for each in range(100)])
            assert store.dropped == -QUEUE % 100
            store.put([(summary(9_999), b"")])
            assert store.dropped == -QUEUE % 100 + 1
        finally:
            free.set()
        assert len(await numbers(store, limit=9_999)) == QUEUE


async def test_a_disk_that_hangs_fails_the_reader_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_READ_S", 0.05)
    async with opened(tmp_path / "t") as store:
        free = threading.Event()
        store._thread.submit(free.wait)
        try:
            with pytest.raises(store_module.Unavailable):
                await store.newest(ALL)
        finally:
            free.set()


async def test_two_gateways_can_share_the_file_while_one_replaces_the_other(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "t") as old, opened(tmp_path / "t") as new:
        for number in range(20):
            (old, new)[number % 2].put([(summary(number), b"x")])
        await asyncio.gather(old.newest(ALL), new.newest(ALL))
        assert len(await numbers(old)) == len(await numbers(new)) == 20


@pytest.mark.parametrize(
    "caused",
    [
        {"reasons": "refused", "status": 422},
        {"reasons": "refused", "status": 200},
        {"reasons": "error", "status": 499, "error": True},
        {"reasons": "refused,wanted", "status": 404},
        {"reasons": "wanted"},
        {"reasons": "received,error"},
        {"reasons": "looked_at"},
    ],
)
async def test_what_callers_bring_about_has_a_share_of_the_file_not_all(
    caused: dict[str, Any],
) -> None:
    async with opened(None, newest=100) as store:
        store.put([(summary(number, reasons="degraded"), b"x") for number in range(50)])
        store.put([(summary(number, **caused), b"x") for number in range(1_000, 1_300)])
        kept = await numbers(store, limit=1_000)
    assert kept == [*range(1_299, 1_279, -1), *range(49, -1, -1)]


async def test_what_callers_bring_about_has_a_share_of_the_bytes() -> None:
    large = os.urandom(20_000)
    async with opened(None, newest=100, max_bytes=200_000) as store:
        store.put([(summary(1, reasons="error", status=500), large)])
        store.put([(summary(number, reasons="received"), large) for number in range(10, 20)])
        kept = await numbers(store)
    assert kept == [19, 1]


async def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tracer" / "traces.sqlite"
    before = os.umask(0o022)
    try:
        async with opened(path) as store:
            store.put([(summary(1), b"spans")])
            await numbers(store)
            modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert len(modes) > 1, "what SQLite puts beside it too"
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    path.touch(mode=0o644)
    async with opened(path):
        assert path.stat().st_mode & 0o777 == 0o600
