"""What the ingester shows: jobs by state, how far behind it is, where the time goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from raglan.database import Database, now_ms
from raglan_ingester.jobs import JobStore
from raglan_ingester.metrics import IngesterMetrics
from raglan_ingester.model import Item, ItemState, Job, JobState
from raglan_ingester.schema import SCHEMA
from sqlalchemy.orm import Session


class Counted:
    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.metrics = IngesterMetrics(self.registry)
        self.database = database
        self.jobs = JobStore(database)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"raglan_{name}", labels) or 0.0

    async def add(self, id_: str, state: JobState, age_s: float, *items: ItemState) -> None:
        def work(session: Session) -> None:
            created = now_ms() - round(age_s * 1e3)
            job = Job(id=id_, collection="c", documents=len(items), created_ms=created)
            job.state = state
            session.add(job)
            session.flush()
            for ordinal, item in enumerate(items):
                row = Item(job_id=id_, ordinal=ordinal, document_id=str(ordinal))
                row.state, row.sha256, row.size_bytes = item, "0", 1
                session.add(row)

        await self.database.run(work)

    async def until(self, name: str, value: float, **labels: str) -> None:
        async with asyncio.timeout(30):
            while self.value(name, **labels) != value:
                await asyncio.sleep(0.005)


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    database = Database(f"sqlite:///{tmp_path / 'ingester.sqlite'}", SCHEMA)
    await database.create()
    counted = Counted(database)
    yield counted
    await counted.metrics.close()
    await database.close()


async def test_jobs_by_state_and_what_is_left_of_them(counted: Counted) -> None:
    queued, done = ItemState.QUEUED, ItemState.DONE
    await counted.add("a", JobState.RUNNING, 90, done, queued, queued)
    await counted.add("b", JobState.QUEUED, 30, queued)
    await counted.add("c", JobState.SUCCEEDED, 9_000, done)
    await counted.add("d", JobState.CANCELLED, 9_000, queued)
    counted.metrics.watch(counted.jobs)
    await counted.until("ingester_jobs", 1, state="running")
    assert counted.value("ingester_jobs", state="queued") == 1
    assert counted.value("ingester_jobs", state="succeeded") == 1
    assert counted.value("ingester_jobs", state="failed") == 0
    assert counted.value("ingester_waiting_documents") == 3
    assert counted.value("ingester_oldest_job_seconds") == pytest.approx(90, abs=5)


async def test_an_ingester_that_has_nothing_to_do_is_not_behind(counted: Counted) -> None:
    await counted.add("c", JobState.SUCCEEDED, 9_000, ItemState.DONE)
    counted.metrics.watch(counted.jobs)
    await counted.until("ingester_jobs", 1, state="succeeded")
    assert counted.value("ingester_oldest_job_seconds") == 0
    assert counted.value("backlog_seconds") == 0


async def test_the_backlog_follows_the_speed_of_late(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raglan_ingester.metrics.EVERY_S", 0.02)
    await counted.add("a", JobState.RUNNING, 1, *[ItemState.QUEUED] * 10)
    counted.metrics.watch(counted.jobs)
    await counted.until("ingester_waiting_documents", 10)
    slow = counted.value("backlog_seconds")
    counted.metrics.indexed(documents=50, chunks=100)
    async with asyncio.timeout(30):
        while counted.value("backlog_seconds") >= slow / 10:
            await asyncio.sleep(0.005)
    assert counted.value("ingester_documents_total") == 50
    assert counted.value("ingester_chunks_total") == 100


async def test_work_counts_by_how_it_ended(counted: Counted) -> None:
    with counted.metrics.timed("parse"):
        pass
    with pytest.raises(ValueError, match="broken"), counted.metrics.timed("parse"):
        raise ValueError("broken")
    with pytest.raises(asyncio.CancelledError), counted.metrics.timed("embed"):
        raise asyncio.CancelledError
    count = "ingester_stage_duration_seconds_count"
    assert counted.value(count, stage="parse", status="ok") == 1
    assert counted.value(count, stage="parse", status="failed") == 1
    assert counted.value(count, stage="embed", status="cancelled") == 1
    counted.metrics.job_ended(JobState.PARTIAL, 12.5)
    assert counted.value("ingester_job_duration_seconds_sum", state="partial") == 12.5
