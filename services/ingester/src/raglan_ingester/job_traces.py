"""The span of a job: in the trace of the upload it came from, even when a crash lies between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.trace import SpanKind, Status, StatusCode
from raglan import tenancy
from raglan.database import Transactions
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from sqlalchemy.orm import Session

from raglan_ingester.model import Job, JobState, JobTrace


class JobTraces:
    """Keeps with each job whose request it was, and which run worked on it last."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def submitted(self, job_id: str) -> None:
        """The current request has submitted the job."""
        trace = JobTrace(job_id=job_id, request=_traceparent())
        await self._database.run(lambda session: session.merge(trace))

    @asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[None]:
        """The span of one run. It links to the run before it, if a crash or a retry made it."""
        known = await self._database.run(lambda session: session.get(JobTrace, job.id))
        tenant, name = tenancy.split(job.collection)
        attributes = {
            semconv.JOB_ID: job.id,
            semconv.JOB_ATTEMPT: job.attempt,
            semconv.COLLECTION: name,
            semconv.DOCUMENTS: job.documents,
        } | ({semconv.TENANT: tenant} if tenant else {})
        carrier = {"traceparent": known.request if known else ""}
        with request_context.incoming(
            carrier, semconv.INGEST_JOB, attributes, kind=SpanKind.CONSUMER
        ):
            span = tracing.current()
            if known and (before := request_context.caller({"traceparent": known.last_run})):
                span.add_link(before)
                span.set_attribute(semconv.RESUMED, known.last_attempt == job.attempt)
            await self._begun(job)
            yield

    async def _begun(self, job: Job) -> None:
        run = _traceparent()

        def work(session: Session) -> None:
            trace = session.get(JobTrace, job.id) or JobTrace(job_id=job.id, request="")
            trace.last_run, trace.last_attempt = run, job.attempt
            session.add(trace)

        await self._database.run(work)


def ended(state: JobState) -> None:
    """Say on the current span how its job has ended."""
    span = tracing.current()
    span.set_attribute(semconv.JOB_STATUS, str(state))
    if state is JobState.FAILED:
        span.set_status(Status(StatusCode.ERROR, "No document could be ingested."))


def _traceparent() -> str:
    return request_context.headers().get("traceparent", "")
