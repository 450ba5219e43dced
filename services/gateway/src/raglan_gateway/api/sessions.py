"""`/v1/sessions` and `/v1/queries`: conversations, past answers, feedback."""

from __future__ import annotations

import asyncio
import json
import uuid
import zlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from raglan.errors import InvalidInput, NotSupported

from raglan_gateway.api import conversation_schemas as schemas
from raglan_gateway.api.text import PlainText
from raglan_gateway.conversation import rows
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.store.model import AnswerRow, FeedbackRow, SessionRow

SessionId = Annotated[str, Path(pattern=schemas.SESSION_ID)]
QueryId = Annotated[str, Path(pattern=schemas.QUERY_ID)]
_EXPORT_PAGE: Final = 50


def router(archive: Archive) -> APIRouter:
    """The routes of what is kept of conversations."""
    routes = APIRouter(prefix="/v1", tags=["conversations"])
    _add_sessions(routes, archive)
    _add_answers(routes, archive)
    return routes


def _add_sessions(routes: APIRouter, archive: Archive) -> None:
    @routes.post("/sessions", status_code=201)
    async def create_session(body: schemas.NewSession) -> schemas.Session:
        """Create a session. A query with a new `session_id` does so too."""
        _check_on(archive)
        session_id = body.id or f"s-{uuid.uuid4().hex}"
        return _session(await archive.run(rows.create_session, session_id, body.title))

    @routes.get("/sessions")
    async def list_sessions(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[PlainText, Query(max_length=160)] = "",
    ) -> schemas.Sessions:
        """Sessions of the caller, the last used first."""
        _check_on(archive)
        place = _place(after) if after else None
        found = await archive.run(rows.list_sessions, limit, place)
        last = found[-1] if len(found) == limit else None
        return schemas.Sessions(
            sessions=[_session(row) for row in found],
            next_after=f"{last.used_ms}:{last.id}" if last else None,
        )

    @routes.get("/sessions/{session_id}")
    async def get_session(
        session_id: SessionId,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[PlainText, Query(max_length=160)] = "",
    ) -> schemas.SessionTurns:
        """A session with its turns, oldest first."""
        _check_on(archive)
        row = await archive.run(rows.find_session, session_id)
        found = await archive.run(rows.answers_of, session_id, limit, _place(after))
        last = found[-1][0] if len(found) == limit else None
        return schemas.SessionTurns(
            **_session(row).model_dump(),
            turns=[_turn(*each) for each in found],
            next_after=f"{last.created_ms}:{last.id}" if last else None,
        )

    @routes.patch("/sessions/{session_id}")
    async def rename_session(session_id: SessionId, body: schemas.SessionTitle) -> schemas.Session:
        """Set the title of a session."""
        _check_on(archive)
        return _session(await archive.run(rows.rename_session, session_id, body.title))

    @routes.delete("/sessions/{session_id}")
    async def delete_session(session_id: SessionId) -> schemas.Erased:
        """Delete a session, its answers and their feedback."""
        _check_on(archive)
        await archive.erase(rows.delete_session, session_id)
        return schemas.Erased(id=session_id)

    @routes.get(
        "/sessions/{session_id}/export",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    async def export_session(session_id: SessionId) -> StreamingResponse:
        """A session as JSON lines: each past answer, as `/v1/queries/{query_id}` has it."""
        _check_on(archive)
        await archive.run(rows.find_session, session_id)
        first = await archive.run(rows.answers_of, session_id, _EXPORT_PAGE)
        lines = _lines(archive, session_id, first)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def _add_answers(routes: APIRouter, archive: Archive) -> None:
    @routes.get("/queries/{query_id}")
    async def get_query(query_id: QueryId) -> schemas.KeptQuery:
        """A past answer of the caller, with what it was made from."""
        _check_on(archive)
        found = await archive.run(rows.answer_with_feedback, query_id)
        return await asyncio.to_thread(_kept, *found)

    @routes.delete("/queries/{query_id}")
    async def delete_query(query_id: QueryId) -> schemas.Erased:
        """Delete a past answer and its feedback."""
        _check_on(archive)
        await archive.erase(rows.delete_answer, query_id)
        return schemas.Erased(id=query_id)

    @routes.put("/queries/{query_id}/feedback")
    async def put_feedback(query_id: QueryId, body: schemas.Feedback) -> schemas.StoredFeedback:
        """Rate a past answer; later feedback takes the place of earlier."""
        _check_on(archive)
        return _feedback(await archive.run(rows.put_feedback, query_id, **body.model_dump()))


def _check_on(archive: Archive) -> None:
    if not archive.is_on:
        raise NotSupported(
            "Answers are not kept: RAGLAN_GATEWAY_KEEP_ANSWERS_S is 0; set it to their age in "
            "seconds."
        )


def _place(after: str) -> tuple[int, str]:
    """Position of the last row of the page before."""
    if not after:
        return 0, ""
    at_ms, _, answer_id = after.partition(":")
    if not (at_ms.isascii() and at_ms.isdecimal() and len(at_ms) <= 18):
        raise InvalidInput("after is not a next_after of an earlier page.")
    return int(at_ms), answer_id


async def _lines(
    archive: Archive, session_id: str, page: list[tuple[AnswerRow, FeedbackRow | None]]
) -> AsyncGenerator[str, None]:
    while page:
        for each in page:
            yield (await asyncio.to_thread(_kept, *each)).model_dump_json() + "\n"
        last = page[-1][0]
        after = (last.created_ms, last.id)
        page = await archive.run(rows.answers_of, session_id, _EXPORT_PAGE, after)


def _session(row: SessionRow) -> schemas.Session:
    return schemas.Session(
        id=row.id, title=row.title, created_at=_time(row.created_ms), used_at=_time(row.used_ms)
    )


def _turn(row: AnswerRow, feedback: FeedbackRow | None) -> schemas.SessionTurn:
    return schemas.SessionTurn(
        query_id=row.id,
        question=row.question,
        answer=row.answer,
        created_at=_time(row.created_ms),
        feedback=_feedback(feedback) if feedback else None,
    )


def _kept(row: AnswerRow, feedback: FeedbackRow | None) -> schemas.KeptQuery:
    record: dict[str, Any] = json.loads(zlib.decompress(row.record))
    return schemas.KeptQuery(
        id=row.id,
        session_id=row.session_id,
        created_at=_time(row.created_ms),
        request=record["request"],
        reply=record["reply"],
        feedback=_feedback(feedback) if feedback else None,
    )


def _feedback(row: FeedbackRow) -> schemas.StoredFeedback:
    return schemas.StoredFeedback(
        rating=cast('Literal["good", "bad"]', row.rating),
        reasons=row.reasons,
        text=row.text,
        passage=row.passage,
        updated_at=_time(row.updated_ms),
    )


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1e3, UTC).isoformat(timespec="milliseconds")
