"""Jobs that delete or tag every document that passes a filter.

A job goes through the collection by id, a batch at a time. A batch is changed in the database in
one transaction with the job's progress, then in the index. A run that a crash breaks off is
continued from there, and counts every document once. Documents that were submitted after the job
stay as they are.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, Protocol

import structlog
from raglan import access_tags
from raglan.database import now_ms
from raglan.deadline import Deadline
from raglan.errors import Conflict, RaglanError
from raglan.filtering.clauses import Clause
from raglan.filtering.wire import clause_from_proto
from raglan.v1 import retriever_pb2

from raglan_ingester.change_store import Applied, Change, ChangeStore, change_of
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.jobs import JobStore
from raglan_ingester.labelling import AT_ONCE, Labelling
from raglan_ingester.labels import LabelChange
from raglan_ingester.model import Job, JobKind, JobState
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.selection import Page, Selection
from raglan_ingester.submission import new_job_id

log: Final = structlog.get_logger()

_BATCH_S: Final = 60.0
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Matches:
    """Documents that pass a filter, counted within the rows of one call."""

    count: int
    is_exact: bool
    is_everything: bool
    """True if each document looked at that the caller reaches passes."""
    ids: list[str]
    """The first ones."""


class Library(Protocol):
    """The part of the library that deletes."""

    async def clear(
        self,
        collection: str,
        ids: Sequence[str],
        deadline: Deadline,
        hashes: Sequence[str] = (),
    ) -> None:
        """Remove what is left of documents whose rows are gone."""
        ...


class Changes:
    """Makes and runs the jobs.

    Args:
        jobs: the jobs' records; waits for a database that is away.
        selection: finds the documents.
        store: changes them in the database.
        locks: of the collections.
        library: removes what is left of deleted ones.
        labelling: brings labels to the index.
        retry: waits for an index that is away.
        max_documents: of one run of a job.
    """

    def __init__(
        self,
        jobs: JobStore,
        selection: Selection,
        store: ChangeStore,
        locks: CollectionLocks,
        library: Library,
        labelling: Labelling,
        retry: OutageRetry,
        *,
        max_documents: int,
    ) -> None:
        self._jobs = jobs
        self._selection = selection
        self._store = store
        self._locks = locks
        self._library = library
        self._labelling = labelling
        self._retry = retry
        self._max_documents = max_documents

    async def count(self, collection: str, filter_: retriever_pb2.Filter) -> Matches:
        """Count the documents that pass, among as many as one call looks at."""
        found = await self._selection.count(collection, clause_from_proto(filter_), ids=_SHOWN)
        is_everything = found.passing == found.reached > 0
        return Matches(found.passing, found.is_exact, is_everything, found.ids)

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
        held = change_of(job).held
        reason = ""
        try:
            with access_tags.serving(None if held is None else tuple(held)):
                reason = await self._work(job, stop)
        except RaglanError as error:
            reason = f"{error.message} Retry the job when that is repaired."
        except Exception:
            log.exception("a job broke off", job=job.id)
            reason = "The ingester met an error of its own; retry the job."
        done = await self._jobs.finish_change(job, reason, is_cancelled=stop.is_set())
        log.info("job ended", job=job.id, kind=job.kind, state=str(done))
        return done

    async def _work(self, job: Job, stop: asyncio.Event) -> str:
        """Change batch after batch; return why it ended early, or nothing."""
        change = change_of(job)
        where, before = change.where(), change.changed
        await self._follow(job, change)  # what a run that broke off had changed
        while not stop.is_set():
            room = self._max_documents - (change.changed - before)
            if room <= 0:
                return (
                    f"The job changed {change.changed - before:,} documents, the limit "
                    "(RAGLAN_INGESTER_MAX_CHANGED_DOCUMENTS); retry it for the rest."
                )
            page = await self._selection.page(
                job.collection, where, limit=min(AT_ONCE, room), after=change.after
            )
            applied = await self._retry.call(partial(self._apply, job, where, page, change.after))
            if applied is None:
                stop.set()
                break
            change = applied.change
            await self._follow(job, change, applied.hashes)
            if not page.next_after:
                break
        return ""

    async def _apply(self, job: Job, where: Clause, page: Page, after: str) -> Applied | None:
        ids = [row.id for row in page.rows]
        end = page.next_after or (ids[-1] if ids else after)
        async with self._locks.of(job.collection):
            return await self._store.apply(job, where, ids, after=end)

    async def _follow(self, job: Job, change: Change, hashes: Sequence[str] = ()) -> None:
        """Bring the batch that was changed last to the index."""
        if not change.batch:
            return

        async def call() -> Mapping[str, RaglanError]:
            deadline = Deadline.after(_BATCH_S)
            if job.kind == JobKind.TAG:
                return await self._labelling.follow(job.collection, change.batch, deadline)
            await self._library.clear(job.collection, change.batch, deadline, hashes)
            return {}

        if refused := await self._retry.call(call):
            reasons = {id_: error.message for id_, error in refused.items()}
            await self._store.refuse(job, reasons)


def keeps_access(job: Job) -> bool:
    """Return whether a job tags documents and leaves their access tags as they are."""
    tagging = (job.change or {}).get("tagging") or {}
    return bool(tagging) and not (tagging["add_access"] or tagging["remove_access"])
