"""Statements over sessions, answers and feedback; each runs in one transaction on a thread."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from raglan.database import now_ms
from raglan.errors import NotFound
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from raglan_gateway.conversation import changes
from raglan_gateway.conversation.records import Bounds, History, NewAnswer, Owner
from raglan_gateway.store.model import (
    AnswerRow,
    AnswerSource,
    FeedbackRow,
    SessionRow,
)


def insert_answers(session: Session, new: Sequence[NewAnswer]) -> None:
    """Insert answers and the sessions that they begin or go on with.

    Answers whose documents changed while they were made are left out. Repeating it changes
    nothing: a commit whose reply was lost may be repeated.
    """
    begun = {(each.owner, each.session_id): each for each in new if each.session_id}
    rows = []
    current = changes.without_changed(session, new)
    for each in current:
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
    sources = [
        {**_columns(each.owner), "answer_id": each.id, "collection": name, "document": document}
        for each in current
        for name, document in each.sources
    ]
    for table, values in ((AnswerRow, rows), (AnswerSource, sources)):
        if values:
            session.execute(_insert(session, table).on_conflict_do_nothing(), values)
    # In one order, so that two gateways cannot wait for each other.
    for (owner, session_id), last in sorted(begun.items(), key=_order):
        _touch(session, owner, session_id, last.question[:_TITLE_CHARS], last.created_ms)


_TITLE_CHARS = 80


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


def list_sessions(
    session: Session, owner: Owner, limit: int, after: tuple[int, str] | None = None
) -> list[SessionRow]:
    """Return sessions, the last used first, those that follow `after` in this order."""
    used = SessionRow.used_ms, SessionRow.id
    wanted = sa.select(SessionRow).where(*_owned(SessionRow, owner))
    if after is not None:
        wanted = wanted.where(sa.tuple_(*used) < sa.tuple_(*map(sa.literal, after)))
    ordered = wanted.order_by(*(column.desc() for column in used)).limit(limit)
    return list(session.scalars(ordered))


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


def read_history(session: Session, owner: Owner, session_id: str, limit: int) -> History:
    """Return the last questions of a session, with the documents that their answers are of."""
    newest = (AnswerRow.created_ms.desc(), AnswerRow.id.desc())
    wanted = (
        sa.select(AnswerRow.id)
        .where(*_owned(AnswerRow, owner), AnswerRow.session_id == session_id)
        .order_by(*newest)
        .limit(limit)
    )
    ids = session.scalars(wanted).all()
    # The sources first: an answer that is deleted in between is then missing among the turns.
    sources = (
        sa.select(AnswerSource.collection, AnswerSource.document)
        .where(
            AnswerSource.tenant == owner.tenant,
            AnswerSource.caller == owner.caller,
            AnswerSource.answer_id.in_(ids),
        )
        .distinct()
    )
    found = frozenset((collection, document) for collection, document in session.execute(sources))
    turns = (
        sa.select(AnswerRow.question, AnswerRow.answer)
        .where(*_owned(AnswerRow, owner), AnswerRow.id.in_(ids))
        .order_by(*newest)
    )
    return History([(asked, answer) for asked, answer in session.execute(turns)][::-1], found)


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


def put_feedback(session: Session, owner: Owner, answer_id: str, **given: Any) -> FeedbackRow:
    """Set the feedback of an answer, in the place of an earlier one."""
    find_answer(session, owner, answer_id)
    row = FeedbackRow(**_columns(owner), answer_id=answer_id, updated_ms=now_ms(), **given)
    return session.merge(row)


def purge(session: Session, bounds: Bounds) -> None:
    """Delete what is too old, and of each caller what is beyond its bounds, the oldest first."""
    changes.purge(session)  # first, as `insert_answers` begins with them: in one order
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
