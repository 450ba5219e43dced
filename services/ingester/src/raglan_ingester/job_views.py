"""Jobs as their owners see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from raglan import access_tags
from sqlalchemy.orm import Session

from raglan_ingester.change_store import change_of
from raglan_ingester.model import Document, Item, ItemState, Job, JobKind, JobWarning

_WARNINGS_SHOWN: Final = 100
_PAGE: Final = 100
_LOOKED_AT: Final = 1_000
"""Jobs that one call looks at."""


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


def newest(
    session: Session, query: sa.Select[Job], limit: int, held: access_tags.Held
) -> list[Job]:
    """Return up to `limit` jobs of `query` that a caller reaches, among the newest ones.

    Args:
        session: of the caller's transaction.
        query: jobs.
        limit: of the jobs returned.
        held: access tags of the caller.
    """
    ordered = query.order_by(Job.created_ms.desc(), Job.id.desc())
    found: dict[str, Job] = {}
    for at in range(0, _LOOKED_AT, _PAGE):
        page = session.scalars(ordered.offset(at).limit(_PAGE)).all()
        found |= {job.id: job for job in reached(session, page, held)}
        if len(page) < _PAGE or len(found) >= limit:
            break
    return list(found.values())[:limit]


def reached(session: Session, jobs: Sequence[Job], held: access_tags.Held) -> list[Job]:
    """Return the jobs all of whose documents a caller with the tags `held` reaches.

    A job by filter acts with the tags of its maker, so a caller needs those.
    """
    if held is None:
        return list(jobs)
    hidden = _hidden(session, [job.id for job in jobs if job.kind == JobKind.INGEST], held)
    for job in jobs:
        if job.kind != JobKind.INGEST:
            needed = change_of(job).held
            if needed is None or not set(needed) <= set(held):
                hidden.add(job.id)
    return [job for job in jobs if job.id not in hidden]


def _hidden(session: Session, ids: Sequence[str], held: tuple[str, ...]) -> set[str]:
    """Return the jobs with a document out of reach, as it is stored or as it was submitted."""
    same = sa.and_(Document.collection == Job.collection, Document.id == Item.document_id)
    submitted = sa.cast(Item.access, sa.Text).label("submitted")
    stored = sa.cast(Document.access, sa.Text).label("stored")
    query = (
        sa.select(Item.job_id, submitted, stored)
        .join(Job, Job.id == Item.job_id)
        .outerjoin(Document, same)
        .where(Item.job_id.in_(ids))
        .distinct()
    )
    return {
        job_id
        for job_id, *sets in session.execute(query)
        if not all(access_tags.reaches(held, json.loads(tags)) for tags in sets if tags)
    }


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
