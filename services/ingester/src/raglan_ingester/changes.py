"""Jobs that delete or tag every document that passes a filter.

A job goes through the collection by id, a batch at a time, and stores how far it is with its
progress: a run that a crash breaks off is continued from there. Both changes may be made twice.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog
from raglan import access_tags
from raglan.database import now_ms
from raglan.deadline import Deadline
from raglan.errors import Conflict, RaglanError
from raglan.filtering.clauses import Clause
from raglan.filtering.wire import clause_from_proto
from raglan.v1 import retriever_pb2

from raglan_ingester.jobs import JobStore
from raglan_ingester.labelling import AT_ONCE, Labelling
from raglan_ingester.labels import LabelChange
from raglan_ingester.model import Document, Job, JobKind, JobState
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.selection import Page, Selection, passes
from raglan_ingester.submission import new_job_id

log: Final = structlog.get_logger()

_BATCH_S: Final = 60.0
_SHOWN: Final = 20
_REFUSED_SHOWN: Final = 100


@dataclass(slots=True)
class Change:
    """Change of a job, and how far it is; stored as JSON."""

    filter: str
    """A `raglan.v1.Filter`, serialized, in Base64."""
    held: list[str] | None
    """Tags of the caller who made the job; None reaches every document."""
    tagging: dict[str, Any] = field(default_factory=dict)
    """Fields of a `LabelChange`."""
    after: str = ""
    """Id of the last document that was looked at."""
    changed: int = 0
    refused: list[list[str]] = field(default_factory=list)
    """Id and reason, the first ones."""
    refusals: int = 0

    def where(self) -> Clause:
        """Return the filter."""
        return clause_from_proto(retriever_pb2.Filter.FromString(base64.b64decode(self.filter)))


@dataclass(frozen=True, slots=True)
class Matches:
    """Documents that pass a filter, counted within the rows of one call."""

    count: int
    is_exact: bool
    is_everything: bool
    """True if none of the documents looked at fails to pass."""
    ids: list[str]
    """The first ones."""


class Library(Protocol):
    """The part of the library that deletes."""

    async def delete_batch(
        self, collection: str, document_ids: list[str], deadline: Deadline
    ) -> tuple[int, list[str]]:
        """Delete documents that the current caller reaches."""
        ...


class Changes:
    """Makes and runs the jobs.

    Args:
        jobs: the jobs' records; waits for a database that is away.
        selection: finds the documents.
        library: deletes them.
        labelling: tags them.
        retry: waits for an index that is away.
        max_documents: of one job.
    """

    def __init__(
        self,
        jobs: JobStore,
        selection: Selection,
        library: Library,
        labelling: Labelling,
        retry: OutageRetry,
        *,
        max_documents: int,
    ) -> None:
        self._jobs = jobs
        self._selection = selection
        self._library = library
        self._labelling = labelling
        self._retry = retry
        self._max_documents = max_documents

    async def count(self, collection: str, filter_: retriever_pb2.Filter) -> Matches:
        """Count the documents that pass, among as many as one call looks at."""
        page = await self._selection.page(
            collection, clause_from_proto(filter_), limit=self._max_documents, after=""
        )
        ids = [row.id for row in page.rows[:_SHOWN]]
        is_everything = len(page.rows) == page.scanned > 0
        return Matches(len(page.rows), not page.next_after, is_everything, ids)

    def job(
        self,
        collection: str,
        filter_: retriever_pb2.Filter,
        tagging: LabelChange | None,
        found: Matches,
        *,
        allow_all: bool,
    ) -> Job:
        """Make a job.

        Raises:
            Conflict: the filter matches everything, which was not allowed.
        """
        if found.is_everything and not allow_all:
            raise Conflict(
                f"The filter matches every document that was looked at ({found.count:,}); narrow "
                'it, or allow that: "all": true (raglan documents ... --all).'
            )
        held = access_tags.current()
        change = Change(
            filter=base64.b64encode(filter_.SerializeToString()).decode(),
            held=None if held is None else list(held),
            tagging={} if tagging is None else asdict(tagging),
        )
        kind = JobKind.DELETE if tagging is None else JobKind.TAG
        return Job(
            id=new_job_id(),
            collection=collection,
            kind=kind,
            documents=found.count,
            created_ms=now_ms(),
            stages={str(kind): [0, found.count]},
            change=asdict(change),
        )

    async def run(self, job: Job, stop: asyncio.Event) -> JobState:
        """Run a job from where it is to its end, or until `stop` is set."""
        change = Change(**(job.change or {}))
        reason = ""
        try:
            with access_tags.serving(None if change.held is None else tuple(change.held)):
                reason = await self._work(job, change, stop)
        except RaglanError as error:
            reason = f"{error.message} Retry the job when that is repaired."
        for_owner = [*([("", reason)] if reason else ()), *change.refused]
        is_partial = bool(change.refusals) or (bool(reason) and change.changed > 0)
        state = JobState.SUCCEEDED
        if stop.is_set():
            state = JobState.CANCELLED
        elif is_partial:
            state = JobState.PARTIAL
        elif reason:
            state = JobState.FAILED
        done = await self._jobs.finish_change(job, state, for_owner)
        log.info("job ended", job=job.id, kind=job.kind, state=str(done), documents=change.changed)
        return done

    async def _work(self, job: Job, change: Change, stop: asyncio.Event) -> str:
        """Change batch after batch; return why it ended early, or nothing."""
        where = change.where()
        while not stop.is_set():
            page = await self._selection.page(
                job.collection, where, limit=AT_ONCE, after=change.after
            )
            rows = [row for row in page.rows if row.created_ms <= job.created_ms]
            if rows:
                await self._retry.call(partial(self._change, job, change, where, rows))
            change.after = _end_of(page, change.after)
            change.changed += len(rows)
            if await self._jobs.save_change(job, asdict(change), self._stages(job, change)):
                stop.set()
            if not page.next_after:
                return ""
            if change.changed >= self._max_documents:
                return (
                    f"The job changed {change.changed:,} documents, the limit "
                    "(RAGLAN_INGESTER_MAX_CHANGED_DOCUMENTS); run it again for the rest."
                )
        return ""

    async def _change(self, job: Job, change: Change, where: Clause, rows: list[Document]) -> None:
        ids = [row.id for row in rows]
        deadline = Deadline.after(_BATCH_S)
        if job.kind == JobKind.DELETE:
            await self._library.delete_batch(job.collection, ids, deadline)
            return
        tagging = _tagging(change.tagging)
        held = access_tags.current()

        def still(row: Document) -> bool:
            return access_tags.reaches(held, row.access) and passes(row, where)

        refused = await self._labelling.change(job.collection, ids, tagging, still, deadline)
        change.refusals += len(refused)
        room = _REFUSED_SHOWN - len(change.refused)
        change.refused += [[id_, reason] for id_, reason in refused.items()][:room]

    def _stages(self, job: Job, change: Change) -> dict[str, list[int]]:
        return {job.kind: [change.changed, max(job.documents, change.changed)]}


def keeps_access(job: Job) -> bool:
    """Return whether a job tags documents and leaves their access tags as they are."""
    tagging = (job.change or {}).get("tagging") or {}
    return bool(tagging) and not (tagging["add_access"] or tagging["remove_access"])


def _end_of(page: Page, after: str) -> str:
    return page.next_after or (page.rows[-1].id if page.rows else after)


def _tagging(fields: Mapping[str, Any]) -> LabelChange:
    return LabelChange(
        metadata=fields["metadata"],
        add_access=tuple(fields["add_access"]),
        remove_access=tuple(fields["remove_access"]),
    )
