"""A job that changes documents and is run again: no kept answer of the collection outlasts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from raglan.v1 import ingester_pb2
from raglan_gateway.api import jobs


class Ingester:
    """An ingester with one job."""

    def __init__(self, kind: str, log: list[str]) -> None:
        self.kind, self.log = kind, log

    async def call(self, method: str, request: Any, **_: Any) -> Any:
        self.log.append(method)
        status = ingester_pb2.JOB_STATUS_FAILED
        return ingester_pb2.Job(id=request.id, collection="c", kind=self.kind, status=status)


class Deletions:
    """Notes whose answers go, before what is submitted runs."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def by_filter(self, collection: str, submit: Callable[[], Awaitable[Any]]) -> Any:
        self.log.append(f"forget {collection}")
        return await submit()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ingest", ["GetJob", "RetryJob"]),
        ("delete", ["GetJob", "forget c", "RetryJob"]),
        ("tag", ["GetJob", "forget c", "RetryJob"]),
    ],
)
async def test_answers_go_before_a_job_that_changes_documents_runs_again(
    kind: str, expected: list[str]
) -> None:
    log: list[str] = []
    mesh: Any = SimpleNamespace(ingester=Ingester(kind, log))
    app = FastAPI()
    app.include_router(jobs.router(mesh, Deletions(log), 15))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.post("/v1/jobs/j/retry")).status_code == 200
    assert log == expected
