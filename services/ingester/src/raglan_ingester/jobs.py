"""Jobs and their items in the database: every change of a job's state is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from raglan import access_tags, tenancy
from raglan.database import Transactions, now_ms
from raglan.errors import Conflict, NotFound
from sqlalchemy.orm import Session

from raglan_ingester.change_store import Change, change_of
from raglan_ingester.documents import FORGOTTEN, add_warnings, claim
from raglan_ingester.job_views import JobView, newest, reached, views_of
from raglan_ingester.model import (
    Document,
    DocumentState,
    Item,
    ItemState,
    Job,
    JobCounter,
    JobKind,
    JobState,
    JobWarning,
)
from raglan_ingester.revisions import insert
from raglan_ingester.stranded import fail_stranded

_RERUN = (ItemState.FAILED, ItemState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Overview:
    """All jobs together."""

    by_state: Mapping[JobState, int]
    waiting_documents: int
    """Of unfinished jobs, those not settled yet."""

    oldest_s: float
    """Age of the oldest unfinished job; 0 without any."""


@dataclass(slots=True)
class Tally:
    """Items of a job by state, and chunks of the finished ones."""

    by_state: dict[str, int] = field(default_factory=dict)
    chunks: int = 0

    def of(self, *states: ItemState) -> int:
        """Count the items in any of `states`."""
        return sum(self.by_state.get(state, 0) for state in states)


class JobStore:
    """The jobs and their items."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def add(self, job: Job, items: Sequence[Item], *, is_repair: bool = False) -> None:
        """Record a job with its items and claim their documents, all or nothing.

        Args:
            job: the job.
            items: its documents.
            is_repair: whether to index them anew even where nothing has changed.
        """
        held = None if is_repair else access_tags.current()

        def work(session: Session) -> None:
            job.number = _next_number(session, job.collection)
            session.add(job)
            session.flush()
            session.add_all(items)
            claim(session, job, items, held, is_repair=is_repair)

        await self._database.run(work)

    async def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        return await self._database.run(lambda session: _get(session, job_id))

    async def view(self, job_id: str) -> JobView:
        """The job with all its errors. Raises NotFound, also for what the caller does not reach."""
        held = access_tags.current()

        def work(session: Session) -> JobView:
            found = reached(session, [_get(session, job_id)], held)
            if not found:
                raise _absent(job_id)
            return views_of(session, found, errors=None)[0]

        return await self._database.run(work)

    async def views(self, collection: str, limit: int, *, errors: int) -> list[JobView]:
        """Those that the caller reaches, newest first, each with its first `errors` errors."""
        held = access_tags.current()
        of_tenant = _of(tenancy.current())
        query = sa.select(Job).where(Job.collection == collection if collection else of_tenant)
        return await self._database.run(
            lambda session: views_of(session, newest(session, query, limit, held), errors=errors)
        )

    async def unfinished(self, collection: str = "") -> list[Job]:
        """Return queued and running jobs, of one collection if it is named."""

        def work(session: Session) -> list[Job]:
            query = sa.select(Job).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
            if collection:
                query = query.where(Job.collection == collection)
            return list(session.scalars(query))

        return await self._database.run(work)

    async def overview(self) -> Overview:
        """Return the amount of unfinished work."""

        def work(session: Session) -> Overview:
            states = sa.select(Job.state, sa.func.count()).group_by(Job.state)
            unfinished = sa.select(Job.id, Job.created_ms).where(
                Job.state.in_([JobState.QUEUED, JobState.RUNNING])
            )
            rows = session.execute(unfinished).all()
            waiting = sa.select(sa.func.count()).where(
                Item.job_id.in_([id_ for id_, _ in rows]), Item.state == ItemState.QUEUED
            )
            now = now_ms()
            return Overview(
                {JobState(state): count for state, count in session.execute(states)},
                (session.scalar(waiting) or 0) if rows else 0,
                max((now - created for _, created in rows), default=0) / 1e3,
            )

        return await self._database.run(work)

    async def begin(self, job_id: str, attempt: int) -> Job | None:
        """Mark the job running; None when there is nothing to run any more.

        Args:
            job_id: the job.
            attempt: which is to run; 0 takes the newest.
        """

        def work(session: Session) -> Job | None:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or JobState(job.state).ended or attempt not in (0, job.attempt):
                return None
            job.state = JobState.RUNNING
            return job

        return await self._database.run(work)

    async def queued_items(self, job_id: str, after: int, limit: int) -> list[Item]:
        """Up to `limit` items yet to be worked on, with an ordinal above `after`."""
        query = (
            sa.select(Item)
            .where(Item.job_id == job_id, Item.state == ItemState.QUEUED, Item.ordinal > after)
            .order_by(Item.ordinal)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def tally(self, job_id: str) -> Tally:
        """Count the items of a job by state."""
        return await self._database.run(lambda session: _tally(session, job_id))

    async def save_progress(self, job: Job, **columns: object) -> bool:
        """Store the progress; whether to stop: the job was cancelled, or runs elsewhere."""

        def work(session: Session) -> bool:
            mine = (Job.id == job.id, Job.attempt == job.attempt)
            session.execute(sa.update(Job).where(*mine).values(**columns))
            return session.scalar(sa.select(Job.cancel_requested).where(*mine)) is not False

        return await self._database.run(work)

    async def finish_change(self, run: Job, reason: str, *, is_cancelled: bool) -> JobState:
        """End a job by filter, by what it did; see `finish`.

        Args:
            run: the run.
            reason: why it ended early; empty if it came to its end.
            is_cancelled: whether it was asked to stop.
        """

        def work(session: Session) -> JobState:
            job = _get(session, run.id, lock=True)
            if job.attempt != run.attempt or JobState(job.state).ended:
                return JobState(job.state)
            change = change_of(job)
            _replace_warnings(session, job, reason, change)
            if is_cancelled:
                state = JobState.CANCELLED
            elif change.refusals or (reason and change.changed):
                state = JobState.PARTIAL
            else:
                state = JobState.FAILED if reason else JobState.SUCCEEDED
            job.state, job.finished_ms = state, now_ms()
            return state

        return await self._database.run(work)

    async def break_off(self, run: Job, reason: str) -> JobState:
        """End a job that no run can bring to its end."""
        if run.kind != JobKind.INGEST:
            return await self.finish_change(run, reason, is_cancelled=False)
        await self.fail_queued(run, reason)
        return await self.finish(run, cancelled=False)

    async def warn(self, job: Job, messages: Sequence[str]) -> None:
        """Replace the warnings about the job as a whole."""
        await self._database.run(lambda session: add_warnings(session, job.id, "", messages))

    async def settle(self, job: Job, document_ids: Iterable[str], state: ItemState) -> None:
        """Record that items need no work (any more)."""
        ids = list(document_ids)
        if ids:
            await self._database.run(
                lambda session: session.execute(
                    sa.update(Item).where(*_named(job, ids)).values(state=state, error="")
                )
            )

    async def fail(self, job: Job, errors: Mapping[str, str], *, spoilt: bool = False) -> None:
        """Record why documents failed: id -> sentence.

        A document that was deleted or submitted anew meanwhile has not failed, it is dropped. A
        version of it that was ready before stays so, unless `spoilt`: then its text or its chunks
        are no longer whole.
        """

        def work(session: Session) -> None:
            for document_id, message in errors.items():
                document = session.get(Document, (job.collection, document_id))
                item = sa.update(Item).where(*_named(job, [document_id]))
                if document is None or document.job_id != job.id:
                    session.execute(item.values(state=ItemState.DROPPED))
                    continue
                session.execute(item.values(state=ItemState.FAILED, error=message))
                if spoilt or document.state != DocumentState.READY:
                    document.state, document.error = DocumentState.FAILED, message

        if errors:
            await self._database.run(work)

    async def fail_queued(self, job: Job, message: str) -> None:
        """Record one reason for every document that is left."""
        while items := await self.queued_items(job.id, -1, 500):
            await self.fail(job, {item.document_id: message for item in items})

    async def fail_done(self, job: Job, message: str) -> None:
        """Doubt what was done: record one reason for every document indexed in this job.

        The documents stay as they are; a retry of the job asks the index again.
        """
        query = sa.select(Item.document_id).where(
            Item.job_id == job.id, Item.state.in_((ItemState.DONE, ItemState.UNCHANGED))
        )
        ids = await self._database.run(lambda session: list(session.scalars(query)))
        await self.fail(job, dict.fromkeys(ids, message))

    async def next_attempt(self, seen: Job) -> Job | None:
        """Count one more attempt, because the last ended without ending the job.

        Returns:
            The job; None when it has ended or another process has done this already.
        """

        def work(session: Session) -> Job | None:
            job = session.get(Job, seen.id, with_for_update=True)
            if job is None or JobState(job.state).ended or job.attempt != seen.attempt:
                return None
            job.attempt += 1
            return job

        return await self._database.run(work)

    async def fail_stranded(self) -> int:
        """Settle documents and items that still wait although their job has ended; how many."""
        return await self._database.run(fail_stranded)

    async def expire(self, before_ms: int) -> int:
        """Forget jobs that ended before this; how many."""

        def work(session: Session) -> int:
            old = sa.delete(Job).where(Job.finished_ms < before_ms)
            return int(session.execute(old).rowcount)  # type: ignore[attr-defined]

        return await self._database.run(work)

    async def finish(self, run: Job, *, cancelled: bool) -> JobState:
        """End the job by what became of its items; those still queued become cancelled.

        A run that was considered dead, and whose job another process has taken over, ends
        nothing.
        """

        def work(session: Session) -> JobState:
            job = _get(session, run.id, lock=True)
            if job.attempt != run.attempt:
                return JobState(job.state)
            if cancelled:
                _cancel_items(session, job)
            tally = _tally(session, job.id)
            session.execute(
                sa.update(Item)
                .where(Item.job_id == job.id, Item.state.not_in(_RERUN))
                .values(**FORGOTTEN)
            )
            failed = tally.of(ItemState.FAILED)
            if cancelled and tally.of(ItemState.CANCELLED):
                state = JobState.CANCELLED
            elif failed == 0:
                state = JobState.SUCCEEDED
            else:
                state = JobState.FAILED if failed == job.documents else JobState.PARTIAL
            job.state, job.finished_ms = state, now_ms()
            return state

        return await self._database.run(work)

    async def cancel(self, job_id: str) -> None:
        """Ask the job to stop; one that has not begun ends here. Raises NotFound."""

        def work(session: Session) -> None:
            job = _get(session, job_id, lock=True)
            if job.state == JobState.QUEUED:
                _cancel_items(session, job)
                job.state, job.finished_ms = JobState.CANCELLED, now_ms()
            elif job.state == JobState.RUNNING:
                job.cancel_requested = True

        await self._database.run(work)

    async def retry(self, job_id: str) -> Job | None:
        """Put failed and cancelled items back in the queue; None when there are none.

        Raises:
            NotFound: no such job.
            Conflict: the job has not ended.
        """

        def work(session: Session) -> Job | None:
            job = _get(session, job_id, lock=True)
            if not JobState(job.state).ended:
                raise Conflict(f"The job {job_id} is {job.state}; retry it when it has ended.")
            is_unfinished = job.kind != JobKind.INGEST and job.state != JobState.SUCCEEDED
            if not _requeue_items(session, job) and not is_unfinished:
                return None
            job.state, job.finished_ms, job.cancel_requested = JobState.QUEUED, None, False
            job.attempt += 1
            return job

        return await self._database.run(work)


def _replace_warnings(session: Session, job: Job, reason: str, change: Change) -> None:
    session.execute(sa.delete(JobWarning).where(JobWarning.job_id == job.id))
    newer = (
        f"{change.newer:,} of the documents were submitted after this job and stay as they are."
        if change.newer
        else ""
    )
    add_warnings(session, job.id, "", [each for each in (reason, newer) if each])
    for document_id, message in change.refused:
        add_warnings(session, job.id, document_id, [message])


def _next_number(session: Session, collection: str) -> int:
    """Count the jobs of a collection: in the order in which the transactions commit."""
    added = insert(session, JobCounter).values(collection=collection, number=1)
    counted = added.on_conflict_do_update(
        index_elements=["collection"], set_={"number": JobCounter.number + 1}
    )
    return int(session.scalars(counted.returning(JobCounter.number)).one())


def _of(tenant: str) -> sa.ColumnElement[bool]:
    """Select the jobs of a tenant."""
    if not tenant:
        return ~Job.collection.contains(tenancy.SEPARATOR)
    return Job.collection.startswith(f"{tenant}{tenancy.SEPARATOR}", autoescape=True)


def _named(job: Job, document_ids: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    return Item.job_id == job.id, Item.document_id.in_(document_ids)


def _get(session: Session, job_id: str, *, lock: bool = False) -> Job:
    job = session.get(Job, job_id, with_for_update=lock or None)
    if job is None:
        raise _absent(job_id)
    return job


def _absent(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id!r}.")


def _cancel_items(session: Session, job: Job) -> None:
    error = "The job was cancelled before this document was ingested."
    queued = (Item.job_id == job.id, Item.state == ItemState.QUEUED)
    session.execute(
        sa.update(Document)
        .where(
            Document.collection == job.collection,
            Document.job_id == job.id,
            Document.state == DocumentState.QUEUED,
            Document.id.in_(sa.select(Item.document_id).where(*queued)),
        )
        .values(state=DocumentState.FAILED, error=error)
        .execution_options(synchronize_session=False)
    )
    session.execute(sa.update(Item).where(*queued).values(state=ItemState.CANCELLED, error=error))


def _requeue_items(session: Session, job: Job) -> int:
    again = (Item.job_id == job.id, Item.state.in_(_RERUN))
    session.execute(
        sa.update(Document)
        .where(
            Document.collection == job.collection,
            Document.job_id == job.id,
            Document.state == DocumentState.FAILED,
            Document.id.in_(sa.select(Item.document_id).where(*again)),
        )
        .values(state=DocumentState.QUEUED, error="")
        .execution_options(synchronize_session=False)
    )
    result = session.execute(
        sa.update(Item).where(*again).values(state=ItemState.QUEUED, error="", chunks=0)
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def _tally(session: Session, job_id: str) -> Tally:
    query = (
        sa.select(Item.state, sa.func.count(), sa.func.sum(Item.chunks))
        .where(Item.job_id == job_id)
        .group_by(Item.state)
    )
    tally = Tally()
    for state, count, chunks in session.execute(query):
        tally.by_state[state] = count
        tally.chunks += int(chunks or 0)
    return tally
