"""Jobs by filter in the database: a batch of documents and the job's progress, all or nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa
from raglan import access_tags
from raglan.database import Transactions
from raglan.filtering.clauses import Clause
from raglan.filtering.wire import clause_from_proto
from raglan.v1 import retriever_pb2
from sqlalchemy.orm import Session

from raglan_ingester.documents import delete_rows
from raglan_ingester.labels import Edited, LabelChange, edit_rows
from raglan_ingester.model import Document, Job, JobKind, JobState
from raglan_ingester.selection import passes

_REFUSED_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
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
    batch: list[str] = field(default_factory=list)
    """Documents that were changed last, which the index may not have followed yet."""
    changed: int = 0
    refused: list[list[str]] = field(default_factory=list)
    """Id and reason, the first ones."""
    refusals: int = 0
    newer: int = 0
    """Documents that match, and were submitted after the job."""

    def where(self) -> Clause:
        """Return the filter."""
        return clause_from_proto(retriever_pb2.Filter.FromString(base64.b64decode(self.filter)))

    def with_refused(self, refused: Mapping[str, str]) -> Change:
        """Add documents that could not be changed: id -> sentence."""
        known = {id_ for id_, _ in self.refused}  # of the run before
        fresh = [[id_, reason] for id_, reason in refused.items() if id_ not in known]
        shown = [*self.refused, *fresh][:_REFUSED_SHOWN]
        return replace(self, refused=shown, refusals=self.refusals + len(fresh))


def change_of(job: Job) -> Change:
    """Return the change of a job as it is stored; what another version added is left out."""
    known = Change.__dataclass_fields__
    return Change(**{name: value for name, value in (job.change or {}).items() if name in known})


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch that was changed."""

    change: Change
    """With the progress."""
    hashes: Sequence[str] = ()
    """Of the bytes of deleted documents."""


class ChangeStore:
    """Changes documents in the database, for jobs by filter.

    Args:
        database: of the ingester.
        max_metadata_bytes: of a document's metadata.
    """

    def __init__(self, database: Transactions, max_metadata_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_metadata_bytes

    async def apply(
        self, job: Job, where: Clause, ids: Sequence[str], *, after: str
    ) -> Applied | None:
        """Change a batch and record the progress; None if this run is not to go on.

        Twice does the same as once: a batch that was recorded before is not counted again.

        Args:
            job: the run.
            where: its filter.
            ids: documents that passed it, `AT_ONCE` at most.
            after: id of the last document that was looked at.
        """
        held = access_tags.current()

        def still_passes(row: Document) -> bool:
            return access_tags.reaches(held, row.access) and passes(row, where)

        def work(session: Session) -> Applied | None:
            stored = _running(session, job)
            if stored is None:
                return None
            change = change_of(stored)
            if change.after == after and change.batch:
                return Applied(change)
            hashes, edited, newer = self._change(session, job, ids, still_passes, held)
            done = replace(
                change,
                after=after,
                batch=list(edited.ids),
                changed=change.changed + len(edited.ids),
                newer=change.newer + newer,
            ).with_refused(edited.refused)
            stored.change = asdict(done)
            stored.stages = {job.kind: [done.changed, max(job.documents, done.changed)]}
            return Applied(done, hashes)

        return await self._database.run(work)

    async def refuse(self, job: Job, refused: Mapping[str, str]) -> None:
        """Record documents of the last batch whose labels the index refuses: id -> sentence."""

        def work(session: Session) -> None:
            stored = session.get(Job, job.id, with_for_update=True)
            if stored is not None and stored.attempt == job.attempt:
                stored.change = asdict(change_of(stored).with_refused(refused))

        await self._database.run(work)

    def _change(
        self,
        session: Session,
        job: Job,
        ids: Sequence[str],
        still_passes: Callable[[Document], bool],
        held: access_tags.Held,
    ) -> tuple[Sequence[str], Edited, int]:
        """Change documents; return hashes of deleted bytes, what was done, how many are newer."""
        rows = sa.select(Document).where(
            Document.collection == job.collection, Document.id.in_(ids)
        )
        found = session.scalars(rows.order_by(Document.id).with_for_update()).all()
        passing = [row for row in found if still_passes(row)]
        older = [row for row in passing if row.submission < job.number]
        newer = len(passing) - len(older)
        if job.kind == JobKind.TAG:
            tagging = LabelChange(**(job.change or {})["tagging"])
            return (), edit_rows(session, older, tagging, held, self._max_bytes), newer
        is_older = (Document.id.in_([row.id for row in older]), Document.submission < job.number)
        gone = delete_rows(session, job.collection, *is_older)
        return list(gone.values()), Edited(list(gone), {}), newer


def _running(session: Session, run: Job) -> Job | None:
    """Return the job, locked; None where it ended, was cancelled, or runs elsewhere."""
    job = session.get(Job, run.id, with_for_update=True)
    if job is None or JobState(job.state).ended or job.cancel_requested:
        return None
    return job if job.attempt == run.attempt else None
