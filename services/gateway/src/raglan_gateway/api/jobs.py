"""`/v1/jobs`: look at, follow, cancel, retry."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.v1 import ingester_pb2

from raglan_gateway.api import job_schemas, openapi, replies, schemas, sse
from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.traces import request_outcome

_FOLLOW_S: Final = 24 * 3600.0
JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def router(mesh: Mesh, deletions: Deletions, heartbeat_s: float) -> APIRouter:
    """The routes of jobs."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    async def ask(method: str, request: Any, *, retry: bool = True) -> Any:
        return await mesh.ingester.call(
            method, request, deadline=Deadline.after(TIMEOUT_S), retry=retry
        )

    @routes.get("")
    async def list_jobs(
        collection: schemas.CollectionName | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> job_schemas.Jobs:
        """Jobs, newest first."""
        request = ingester_pb2.ListJobsRequest(collection=collection or "", limit=limit)
        found = await ask("ListJobs", request)
        return job_schemas.Jobs(jobs=[replies.job(job) for job in found.jobs])

    @routes.get("/{job_id}")
    async def get_job(job_id: JobId) -> job_schemas.Job:
        """One job."""
        return replies.job(await ask("GetJob", ingester_pb2.GetJobRequest(id=job_id)))

    @routes.post("/{job_id}/cancel")
    async def cancel_job(job_id: JobId) -> job_schemas.Job:
        """Stop a job; what it indexed so far stays."""
        request = ingester_pb2.GetJobRequest(id=job_id)
        return replies.job(await ask("CancelJob", request, retry=False))

    @routes.post("/{job_id}/retry")
    async def retry_job(job_id: JobId) -> job_schemas.Job:
        """Run the failed documents of a job again; one by a filter goes on where it ended."""
        request = ingester_pb2.GetJobRequest(id=job_id)
        job: ingester_pb2.Job = await ask("GetJob", request)

        async def retry() -> ingester_pb2.Job:
            return await ask("RetryJob", request, retry=False)  # type: ignore[no-any-return]

        if job.kind == "delete" or (job.kind == "tag" and not job.keeps_access):
            job = await deletions.by_job(job.collection, retry, lambda retried: retried)
        else:
            job = await retry()
        request_outcome.note_job()
        return replies.job(job)

    @routes.get(
        "/{job_id}/events",
        response_class=Response,
        responses={200: {"content": openapi.event_stream(openapi.JOB_EVENTS)}},
    )
    async def follow_job(job_id: JobId) -> Response:
        """The job as events: `job` at each change, then `done`; or `error`."""
        request = ingester_pb2.GetJobRequest(id=job_id)
        await ask("GetJob", request)
        return sse.response(_changes(mesh, request), heartbeat_s=heartbeat_s)

    return routes


async def _changes(
    mesh: Mesh, request: ingester_pb2.GetJobRequest
) -> AsyncGenerator[sse.Event, None]:
    jobs = mesh.ingester.stream("WatchJob", request, deadline=Deadline.after(_FOLLOW_S))
    try:
        async with aclosing(jobs):
            async for job in jobs:
                yield sse.Event("job", replies.job(job))
        yield sse.Event("done")
    except RaglanError as error:
        yield sse.problem(error)
