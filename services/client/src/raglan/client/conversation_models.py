"""Objects of sessions, past answers and feedback."""

from __future__ import annotations

from typing import Any, Literal

from raglan.client.model import Model


class Session(Model):
    """A conversation."""

    id: str
    title: str
    created_at: str
    used_at: str


class Sessions(Model):
    """One page of the caller's sessions, the last used first."""

    sessions: list[Session]
    next_after: str | None = None
    """Pass it as `after` for the next page; None on the last."""


class StoredFeedback(Model):
    """Feedback as it is kept."""

    rating: Literal["good", "bad"]
    reasons: list[str]
    text: str
    passage: str
    """Id of the chunk that it is about; empty for the whole answer."""
    updated_at: str


class SessionTurn(Model):
    """A question of a session and its answer."""

    query_id: str
    question: str
    answer: str
    created_at: str
    feedback: StoredFeedback | None


class SessionTurns(Session):
    """A session with its turns, oldest first."""

    turns: list[SessionTurn]
    next_after: str | None
    """Pass it as `after` for the next page; None on the last."""


class KeptQuery(Model):
    """A past answer, and what it was made from."""

    id: str
    session_id: str | None
    created_at: str
    request: dict[str, Any]
    reply: dict[str, Any]
    """The reply of `/v1/query` as it was sent."""
    feedback: StoredFeedback | None


class Erased(Model):
    """A deleted session or answer."""

    id: str
