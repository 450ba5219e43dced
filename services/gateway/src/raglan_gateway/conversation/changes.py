"""Statements over changes of documents, which the answers go with that were made of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from raglan.cache import digest
from raglan.database import now_ms
from sqlalchemy.orm import Session

from raglan_gateway.conversation.records import NewAnswer, OpenChange, Owner
from raglan_gateway.store.model import AnswerRow, AnswerSource, DocumentChange

CHANGES_KEPT_MS: Final = 24 * 3600 * 1000
"""Time for which changes of documents are known; answers that began earlier are not inserted."""
CLOCK_SKEW_MS: Final = 1_000
"""Most that the clocks of two gateways differ."""

_EVERY: Final = b""
_FOLLOWED: Final = 1_000
_HOLD_CHANGES: Final = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": f"LOCK TABLE {DocumentChange.__tablename__} IN SHARE MODE",
}


def note_change(
    session: Session, owner: Owner, collection: str, document_ids: Sequence[str] = ()
) -> str:
    """Note that documents are about to be deleted or to get other access tags; return its id.

    Args:
        session: of the database.
        owner: of the tenant.
        collection: that the documents are in.
        document_ids: theirs; none means all of the collection.
    """
    id_, began_ms = uuid.uuid4().hex, now_ms()
    documents = {digest(each) for each in document_ids} or {_EVERY}
    session.add_all(
        DocumentChange(
            id=id_,
            document=document,
            tenant=owner.tenant,
            collection=collection,
            began_ms=began_ms,
        )
        for document in documents
    )
    return id_


def follow_job(session: Session, owner: Owner, change_id: str, job_id: str) -> None:
    """Note the job that makes a change."""
    session.execute(_change(sa.update(DocumentChange), change_id).values(job_id=job_id))


def drop_change(session: Session, owner: Owner, change_id: str) -> None:
    """Remove a change that was refused or changed nothing."""
    session.execute(_change(sa.delete(DocumentChange), change_id))


def delete_changed(
    session: Session, owner: Owner, change_id: str, untouched: Sequence[str] = ()
) -> None:
    """Close a change; delete the answers of all callers that its documents went into.

    It may be repeated.

    Args:
        session: of the database.
        owner: unused; a change knows its tenant.
        change_id: from `note_change`.
        untouched: documents that were noted and did not change; their answers stay.
    """
    # Changes are written first: that waits until the answers of `without_changed` are there.
    ids = [digest(each) for each in untouched]
    dropped = _change(sa.delete(DocumentChange), change_id)
    session.execute(dropped.where(DocumentChange.document.in_(ids)))
    session.execute(_change(sa.update(DocumentChange), change_id).values(ended_ms=now_ms()))
    changes = session.scalars(_change(sa.select(DocumentChange), change_id)).all()
    if not changes:
        return
    wanted = sa.select(AnswerSource.tenant, AnswerSource.caller, AnswerSource.answer_id).where(
        AnswerSource.tenant == changes[0].tenant, AnswerSource.collection == changes[0].collection
    )
    documents = [each.document for each in changes]
    if _EVERY not in documents:
        wanted = wanted.where(AnswerSource.document.in_(documents))
    session.execute(
        sa.delete(AnswerRow).where(
            sa.tuple_(AnswerRow.tenant, AnswerRow.caller, AnswerRow.id).in_(wanted)
        )
    )


def open_changes(session: Session, before_ms: int) -> list[OpenChange]:
    """Return changes that a job makes, and others that began before `before_ms`; oldest first."""
    wanted = (
        sa.select(
            DocumentChange.id,
            DocumentChange.tenant,
            DocumentChange.collection,
            sa.func.coalesce(DocumentChange.job_id, ""),
            DocumentChange.began_ms,
        )
        .where(
            DocumentChange.ended_ms.is_(None),
            sa.or_(DocumentChange.job_id.is_not(None), DocumentChange.began_ms < before_ms),
        )
        .distinct()
        .order_by(DocumentChange.began_ms)
        .limit(_FOLLOWED)
    )
    return [OpenChange(*row) for *row, _ in session.execute(wanted)]


def without_changed(session: Session, new: Sequence[NewAnswer]) -> list[NewAnswer]:
    """Leave out the answers that began before a change of one of their documents ended.

    No change ends until the transaction does.
    """
    session.execute(sa.text(_HOLD_CHANGES[session.get_bind().dialect.name]))
    since_ms = now_ms() - CHANGES_KEPT_MS
    known = [each for each in new if each.began_ms > since_ms]
    first_ms = min((each.began_ms for each in known), default=now_ms()) - CLOCK_SKEW_MS
    place = (DocumentChange.tenant, DocumentChange.collection, DocumentChange.document)
    ended = (
        sa.select(*place, sa.func.max(DocumentChange.ended_ms))
        .where(DocumentChange.ended_ms >= first_ms)
        .group_by(*place)
    )
    ends = {(*where,): ended_ms or 0 for *where, ended_ms in session.execute(ended)}

    def is_current(answer: NewAnswer) -> bool:
        return all(
            ends.get((answer.owner.tenant, collection, each), 0) + CLOCK_SKEW_MS < answer.began_ms
            for collection, document in answer.sources
            for each in (document, _EVERY)
        )

    return [each for each in known if is_current(each)]


def purge(session: Session) -> None:
    """Delete changes that ended before any answer that may still be inserted."""
    ended = DocumentChange.ended_ms < now_ms() - CHANGES_KEPT_MS
    session.execute(sa.delete(DocumentChange).where(ended))


def _change(statement: Any, change_id: str) -> Any:
    return statement.where(DocumentChange.id == change_id)
