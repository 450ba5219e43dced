"""Statements over sessions, answers and feedback; each runs in one transaction on a thread."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from raglan.cache import digest
from raglan.database import now_ms
from raglan.errors import NotFound
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from raglan_gateway.store.model import (
    AnswerPurge,
    AnswerRow,
    AnswerSource,
    FeedbackRow,
    SessionRow,
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows are read and written; nobody else's are found."""

    tenant: str
    caller: str


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer to keep."""

    owner: Owner
    id: str
    session_id: str | None
    created_ms: int
    question: str
    answer: str
    record: bytes
    """JSON of request and reply."""
    sources: frozenset[tuple[str, str]] = frozenset()
    """Collection and id of each document that its passages are of."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of what is kept; all but the age are of each caller."""

    age_ms: int
    answers: int
    bytes: int
    sessions: int


def insert_answers(session: Session, new: Sequence[NewAnswer]) -> None:
    """Insert answers and the sessions that they begin or go on with.

    Repeating it changes nothing: a commit whose reply was lost may be repeated.
    """
    begun = {}
    rows = []
    for each in new:
        record = zlib.compress(each.record, 1)
        rows.append(
            {
                **_columns(each.owner),
                "id": each.id,
                "session_id": each.session_id,
                "created_ms": each.created_ms,
                "size": len(record),
                "question": each.question,
                "answer": each.answer,
                "record": record,
            }
        )
        if each.session_id:
            begun[(each.owner, each.session_id)] = each
    session.execute(_insert(session, AnswerRow).on_conflict_do_nothing(), rows)
    sources = [
        {**_columns(each.owner), "answer_id": each.id, "collection": name, "document": digest(id_)}
        for each in new
        for name, id_ in each.sources
    ]
    if sources:
        session.execute(_insert(session, AnswerSource).on_conflict_do_nothing(), sources)
    for each in new:
        if each.session_id:
            _inherit_sources(session, each)
    # In one order, so that two gateways cannot wait for each other.
    for (owner, session_id), last in sorted(begun.items(), key=_order):
        _touch(session, owner, session_id, last.question[:_TITLE_CHARS], last.created_ms)


_TITLE_CHARS = 80


def _inherit_sources(session: Session, new: NewAnswer) -> None:
    """Give an answer the sources of those before it: its record has their text as history."""
    earlier = (
        sa.select(
            *(sa.literal(value) for value in (new.owner.tenant, new.owner.caller, new.id)),
            AnswerSource.collection,
            AnswerSource.document,
        )
        .join(
            AnswerRow,
            sa.and_(
                AnswerRow.tenant == AnswerSource.tenant,
                AnswerRow.caller == AnswerSource.caller,
                AnswerRow.id == AnswerSource.answer_id,
            ),
        )
        .where(*_owned(AnswerRow, new.owner), AnswerRow.session_id == new.session_id)
        .distinct()
    )
    columns = ["tenant", "caller", "answer_id", "collection", "document"]
    session.execute(
        _insert(session, AnswerSource).from_select(columns, earlier).on_conflict_do_nothing()
    )


def _order(item: tuple[tuple[Owner, str], NewAnswer]) -> tuple[str, str, str]:
    (owner, session_id), _ = item
    return owner.tenant, owner.caller, session_id


def _touch(session: Session, owner: Owner, session_id: str, title: str, at_ms: int) -> None:
    made = _insert(session, SessionRow).values(
        **_columns(owner), id=session_id, title=title, created_ms=at_ms, used_ms=at_ms
    )
    session.execute(
        made.on_conflict_do_update(
            index_elements=["tenant", "caller", "id"], set_={"used_ms": at_ms}
        )
    )


def create_session(session: Session, owner: Owner, session_id: str, title: str) -> SessionRow:
    """Create a session, or return the one that has the id."""
    now = now_ms()
    made = _insert(session, SessionRow).values(
        **_columns(owner), id=session_id, title=title, created_ms=now, used_ms=now
    )
    session.execute(made.on_conflict_do_nothing())
    return find_session(session, owner, session_id)


def find_session(session: Session, owner: Owner, session_id: str) -> SessionRow:
    """Return a session of `owner`.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    row = session.get(SessionRow, (owner.tenant, owner.caller, session_id))
    if row is None:
        raise NotFound(f"There is no session {session_id!r}.")
    return row


def list_sessions(session: Session, owner: Owner, limit: int) -> list[SessionRow]:
    """Return sessions, the last used first."""
    wanted = (
        sa.select(SessionRow)
        .where(*_owned(SessionRow, owner))
        .order_by(SessionRow.used_ms.desc(), SessionRow.id)
        .limit(limit)
    )
    return list(session.scalars(wanted))


def rename_session(session: Session, owner: Owner, session_id: str, title: str) -> SessionRow:
    """Set the title of a session."""
    row = find_session(session, owner, session_id)
    row.title = title
    return row


def delete_session(session: Session, owner: Owner, session_id: str) -> None:
    """Delete a session with its answers and their feedback."""
    session.delete(find_session(session, owner, session_id))
    session.execute(
        sa.delete(AnswerRow).where(*_owned(AnswerRow, owner), AnswerRow.session_id == session_id)
    )


def last_turns(
    session: Session, owner: Owner, session_id: str, limit: int
) -> list[tuple[str, str]]:
    """Return the last questions of a session with their answers, oldest first."""
    wanted = (
        sa.select(AnswerRow.question, AnswerRow.answer)
        .where(*_owned(AnswerRow, owner), AnswerRow.session_id == session_id)
        .order_by(AnswerRow.created_ms.desc(), AnswerRow.id.desc())
        .limit(limit)
    )
    return [(question, answer) for question, answer in session.execute(wanted)][::-1]


def answers_of(
    session: Session, owner: Owner, session_id: str, limit: int, after: tuple[int, str] = (0, "")
) -> list[tuple[AnswerRow, FeedbackRow | None]]:
    """Return answers of a session with their feedback, oldest first, those after `after`."""
    wanted = (
        sa.select(AnswerRow, FeedbackRow)
        .outerjoin(FeedbackRow, _of_answer())
        .where(
            *_owned(AnswerRow, owner),
            AnswerRow.session_id == session_id,
            sa.tuple_(AnswerRow.created_ms, AnswerRow.id) > sa.tuple_(*map(sa.literal, after)),
        )
        .order_by(AnswerRow.created_ms, AnswerRow.id)
        .limit(limit)
    )
    return [(answer, feedback) for answer, feedback in session.execute(wanted)]


def find_answer(session: Session, owner: Owner, answer_id: str) -> AnswerRow:
    """Return an answer of `owner`.

    Raises:
        NotFound: there is none, it is kept no longer, or it is somebody else's.
    """
    row = session.get(AnswerRow, (owner.tenant, owner.caller, answer_id))
    if row is None:
        raise NotFound(f"There is no answer {answer_id!r}; it may have been kept no longer.")
    return row


def answer_with_feedback(
    session: Session, owner: Owner, answer_id: str
) -> tuple[AnswerRow, FeedbackRow | None]:
    """Return an answer of `owner` and its feedback."""
    row = find_answer(session, owner, answer_id)
    return row, session.get(FeedbackRow, (owner.tenant, owner.caller, answer_id))


def delete_answer(session: Session, owner: Owner, answer_id: str) -> None:
    """Delete an answer and its feedback."""
    session.delete(find_answer(session, owner, answer_id))


def delete_answers_from(
    session: Session, owner: Owner, collection: str, document_ids: Sequence[str]
) -> None:
    """Delete the answers of all callers of a tenant that documents of a collection went into.

    Args:
        session: of the database.
        owner: of the tenant.
        collection: that the documents are in.
        document_ids: theirs; none means all of the collection.
    """
    wanted = sa.select(AnswerSource.tenant, AnswerSource.caller, AnswerSource.answer_id).where(
        AnswerSource.tenant == owner.tenant, AnswerSource.collection == collection
    )
    if document_ids:
        wanted = wanted.where(AnswerSource.document.in_([digest(id_) for id_ in document_ids]))
    session.execute(sa.delete(AnswerRow).where(sa.tuple_(*_key(AnswerRow)).in_(wanted)))


def begin_purge(session: Session, owner: Owner, collection: str) -> None:
    """Note that the kept answers of a tenant's collection go until its changes have ended."""
    session.merge(AnswerPurge(tenant=owner.tenant, collection=collection, began_ms=now_ms()))


def purges(session: Session) -> list[tuple[str, str, int]]:
    """Return what `begin_purge` noted: tenant, collection and when."""
    return [
        (row.tenant, row.collection, row.began_ms)
        for row in session.scalars(sa.select(AnswerPurge).limit(1_000))
    ]


def end_purge(
    session: Session, *, tenant: str, collection: str, began_ms: int, is_last: bool
) -> None:
    """Delete the kept answers of a collection, and the note if `is_last`."""
    delete_answers_from(session, Owner(tenant, ""), collection, ())
    if is_last:
        session.execute(
            sa.delete(AnswerPurge).where(
                AnswerPurge.tenant == tenant,
                AnswerPurge.collection == collection,
                AnswerPurge.began_ms == began_ms,
            )
        )


def put_feedback(session: Session, owner: Owner, answer_id: str, **given: Any) -> FeedbackRow:
    """Set the feedback of an answer, in the place of an earlier one."""
    find_answer(session, owner, answer_id)
    row = FeedbackRow(**_columns(owner), answer_id=answer_id, updated_ms=now_ms(), **given)
    return session.merge(row)


def purge(session: Session, bounds: Bounds) -> None:
    """Delete what is too old, and of each caller what is beyond its bounds, the oldest first."""
    oldest = now_ms() - bounds.age_ms
    session.execute(sa.delete(AnswerRow).where(AnswerRow.created_ms < oldest))
    session.execute(sa.delete(SessionRow).where(SessionRow.used_ms < oldest))
    owner = (AnswerRow.tenant, AnswerRow.caller)
    newest = (AnswerRow.created_ms.desc(), AnswerRow.id.desc())
    ranked = sa.select(
        *_key(AnswerRow),
        sa.func.row_number().over(partition_by=owner, order_by=newest).label("place"),
        sa.func.sum(AnswerRow.size).over(partition_by=owner, order_by=newest).label("total"),
    ).subquery()
    beyond = sa.select(ranked.c.tenant, ranked.c.caller, ranked.c.id).where(
        sa.or_(ranked.c.place > bounds.answers, ranked.c.total > bounds.bytes)
    )
    session.execute(sa.delete(AnswerRow).where(sa.tuple_(*_key(AnswerRow)).in_(beyond)))
    used = sa.select(
        *_key(SessionRow),
        sa.func.row_number()
        .over(
            partition_by=(SessionRow.tenant, SessionRow.caller),
            order_by=(SessionRow.used_ms.desc(), SessionRow.id),
        )
        .label("place"),
    ).subquery()
    over = sa.select(used.c.tenant, used.c.caller, used.c.id).where(used.c.place > bounds.sessions)
    session.execute(
        sa.delete(AnswerRow).where(
            sa.tuple_(AnswerRow.tenant, AnswerRow.caller, AnswerRow.session_id).in_(over)
        )
    )
    session.execute(sa.delete(SessionRow).where(sa.tuple_(*_key(SessionRow)).in_(over)))


def _columns(owner: Owner) -> dict[str, str]:
    return {"tenant": owner.tenant, "caller": owner.caller}


def _owned(
    table: type[SessionRow] | type[AnswerRow], owner: Owner
) -> tuple[sa.ColumnElement[bool], ...]:
    return table.tenant == owner.tenant, table.caller == owner.caller


def _key(table: type[SessionRow] | type[AnswerRow]) -> tuple[sa.ColumnElement[str], ...]:
    return (
        sa.type_coerce(table.tenant, sa.String),
        sa.type_coerce(table.caller, sa.String),
        sa.type_coerce(table.id, sa.String),
    )


def _of_answer() -> sa.ColumnElement[bool]:
    return sa.and_(
        FeedbackRow.tenant == AnswerRow.tenant,
        FeedbackRow.caller == AnswerRow.caller,
        FeedbackRow.answer_id == AnswerRow.id,
    )


def _insert(session: Session, table: type[Any]) -> Any:
    """Return an INSERT with an ON CONFLICT clause to come, in the database's own dialect.

    It is of the table, not of the mapped class, whose rows cost the ORM twice the time.
    """
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return (sqlite if is_sqlite else postgresql).insert(table.__table__)
