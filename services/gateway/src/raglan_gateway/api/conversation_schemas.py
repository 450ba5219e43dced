"""Bodies of sessions, kept answers and feedback."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from raglan_gateway.api.schemas import Described
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import NonBlankText, PlainText

SESSION_ID = r"^[A-Za-z0-9_-]{1,64}$"
QUERY_ID = r"^[A-Za-z0-9._:-]{1,128}$"
Title = Annotated[NonBlankText, Field(max_length=200, examples=["Installing the gateway"])]
SessionId = Annotated[str, Field(pattern=SESSION_ID, examples=["s-42"])]


class NewSession(Strict):
    """A session to create; an id that exists already is returned as it is."""

    id: SessionId | None = None
    title: Title = "New session"


class SessionTitle(Strict):
    """A new title."""

    title: Title


class Session(Described):
    """A conversation."""

    id: str
    title: str
    created_at: str
    used_at: str


class Sessions(Described):
    """One page of the caller's sessions, the last used first."""

    sessions: list[Session]
    next_after: str | None
    """Pass it as `after` for the next page; null on the last."""


class Feedback(Strict):
    """A caller's rating of an answer."""

    rating: Literal["good", "bad"]
    reasons: Annotated[
        list[Annotated[NonBlankText, Field(max_length=64)]], Field(max_length=16, fail_fast=True)
    ] = Field(default_factory=list)
    """Names of reasons, such as `wrong_source`; the client chooses them."""
    text: Annotated[PlainText, Field(max_length=4_000)] = ""
    passage: Annotated[PlainText, Field(max_length=512)] = ""
    """Id of the chunk that it is about; empty for the whole answer."""


class StoredFeedback(Described):
    """Feedback as it is kept."""

    rating: Literal["good", "bad"]
    reasons: list[str]
    text: str
    passage: str
    updated_at: str


class SessionTurn(Described):
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
    """Pass it as `after` for the next page; null on the last."""


class Erased(Described):
    """A deleted object."""

    id: str


class KeptQuery(Described):
    """A past answer, and what it was made from."""

    id: str
    session_id: str | None
    created_at: str
    request: dict[str, Any]
    """The body as it was sent, with the defaults filled in and the history of the session."""
    reply: dict[str, Any]
    """The reply of `/v1/query` as it was sent, with stand-alone question and passages."""
    feedback: StoredFeedback | None
