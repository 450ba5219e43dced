"""The part of the client that works on sessions and past answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from raglan.client._async.connection import AsyncConnection
from raglan.client.conversation_models import (
    Erased,
    KeptQuery,
    Session,
    Sessions,
    SessionTurns,
    StoredFeedback,
)
from raglan.client.transport import given, read_as, segment


class AsyncConversations(AsyncConnection):
    """Makes, reads and deletes sessions; reads, rates and deletes past answers."""

    async def create_session(self, *, title: str | None = None) -> Session:
        """Create a session, whose id continues a conversation: `query(..., session_id=id)`."""
        made = await self.request("POST", "/v1/sessions", json=given(title=title))
        return read_as(Session, made)

    async def list_sessions(self, *, limit: int = 100) -> list[Session]:
        """List the caller's sessions, the last used first."""
        found = await self.request("GET", "/v1/sessions", params=given(limit=limit))
        return read_as(Sessions, found).sessions

    async def iter_sessions(self, *, page_size: int = 100) -> AsyncIterator[Session]:
        """Iterate over all of the caller's sessions, the last used first.

        A session that is used meanwhile moves to the front, and is not seen if it was not yet.
        """
        after: str | None = ""
        while after is not None:
            params = {"limit": page_size, "after": after}
            page = read_as(Sessions, await self.request("GET", "/v1/sessions", params=params))
            for session in page.sessions:
                yield session
            after = page.next_after

    async def export_session(self, session_id: str) -> list[KeptQuery]:
        """Return every answer of a session with what it was made from, oldest first."""
        lines = await self.request("GET", f"/v1/sessions/{segment(session_id)}/export")
        return [read_as(KeptQuery, line) for line in lines]

    async def get_session(
        self, session_id: str, *, limit: int = 100, after: str | None = None
    ) -> SessionTurns:
        """Return a session with its turns, oldest first.

        Args:
            session_id: of the session.
            limit: most turns, up to 1000.
            after: `next_after` of the page before.
        """
        params = given(limit=limit, after=after)
        found = await self.request("GET", f"/v1/sessions/{segment(session_id)}", params=params)
        return read_as(SessionTurns, found)

    async def rename_session(self, session_id: str, title: str) -> Session:
        """Set the title of a session."""
        path = f"/v1/sessions/{segment(session_id)}"
        body = {"title": title}
        return read_as(Session, await self.request("PATCH", path, json=body, idempotent=True))

    async def delete_session(self, session_id: str) -> Erased:
        """Delete a session, its answers and their feedback."""
        path = f"/v1/sessions/{segment(session_id)}"
        return read_as(Erased, await self.request("DELETE", path, idempotent=True))

    async def get_past_query(self, query_id: str) -> KeptQuery:
        """Return a past answer by the `id` of its reply, with what it was made from."""
        found = await self.request("GET", f"/v1/queries/{segment(query_id)}")
        return read_as(KeptQuery, found)

    async def delete_past_query(self, query_id: str) -> Erased:
        """Delete a past answer and its feedback."""
        path = f"/v1/queries/{segment(query_id)}"
        return read_as(Erased, await self.request("DELETE", path, idempotent=True))

    async def rate(
        self,
        query_id: str,
        rating: Literal["good", "bad"],
        *,
        reasons: Sequence[str] = (),
        text: str = "",
        passage: str = "",
    ) -> StoredFeedback:
        """Rate a past answer; later feedback takes the place of earlier.

        Args:
            query_id: the `id` of its reply.
            rating: good or bad.
            reasons: names that the caller chooses, such as `wrong_source`.
            text: a comment.
            passage: id of the chunk that it is about; empty for the whole answer.
        """
        body = {"rating": rating, "reasons": list(reasons), "text": text, "passage": passage}
        path = f"/v1/queries/{segment(query_id)}/feedback"
        return read_as(StoredFeedback, await self.request("PUT", path, json=body, idempotent=True))
