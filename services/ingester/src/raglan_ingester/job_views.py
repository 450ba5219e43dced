"""Jobs as their owners see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from raglan_ingester.model import Document, Item, ItemState, Job, JobWarning

_WARNINGS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it."""

    job: Job
    unchanged: int = 0
    errors: Sequence[tuple[str, str]] = ()
    """(document id, sentence), in the order of submission."""
    warnings: Sequence[tuple[str, str]] = ()
    """(document id, sentence), the first ones; an empty id stands for the whole job."""
    warning_count: int = 0
    replaced: int = 0
    """Documents that took the place of an earlier version."""


def views_of(session: Session, jobs: Sequence[Job], *, errors: int | None) -> list[JobView]:
    """Return views of jobs, each with its first `errors` errors; None for all."""
    views = []
    for job in jobs:
        failed = (
            sa.select(Item.document_id, Item.error)
            .where(Item.job_id == job.id, Item.state == ItemState.FAILED)
            .order_by(Item.ordinal)
            .limit(errors)
        )
        unchanged = sa.select(sa.func.count()).where(
            Item.job_id == job.id, Item.state == ItemState.UNCHANGED
        )
        rows = [(row.document_id, row.error) for row in session.execute(failed)]
        warnings, count = _warnings(session, job.id)
        views.append(
            JobView(
                job,
                session.scalar(unchanged) or 0,
                rows,
                warnings,
                count,
                session.scalar(_replaced(job)) or 0,
            )
        )
    return views


def _replaced(job: Job) -> sa.Select[int]:
    """Counts the job's documents that had been submitted before it."""
    same = sa.and_(Document.collection == job.collection, Document.id == Item.document_id)
    return (
        sa.select(sa.func.count())
        .select_from(Item)
        .join(Document, same)
        .where(
            Item.job_id == job.id,
            Item.state == ItemState.DONE,
            Document.created_ms < job.created_ms,
        )
    )


def _warnings(session: Session, job_id: str) -> tuple[list[tuple[str, str]], int]:
    """The first warnings of a job, and how many there are."""
    of_job = JobWarning.job_id == job_id
    count = session.scalar(sa.select(sa.func.count()).where(of_job)) or 0
    if not count:
        return [], 0
    query = (
        sa.select(JobWarning.document_id, JobWarning.message)
        .where(of_job)
        .order_by(JobWarning.document_id, JobWarning.ordinal)
        .limit(_WARNINGS_SHOWN)
    )
    return [(row.document_id, row.message) for row in session.execute(query)], count
