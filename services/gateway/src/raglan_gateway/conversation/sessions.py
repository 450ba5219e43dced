"""The session of a query: the history before it, and its answer after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raglan.cache import digest
from raglan.database import DatabaseUnavailable, now_ms
from raglan.errors import InvalidInput
from raglan.v1 import common_pb2

from raglan_gateway import answer_id
from raglan_gateway.api import schemas
from raglan_gateway.caches.control import CacheControl
from raglan_gateway.conversation.archive import Archive, new_answer
from raglan_gateway.conversation.records import DocumentKey

_LOST: Final = "The session could not be read; the question was answered without its history."


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A query with the history of its session."""

    body: schemas.QueryRequest
    began_ms: int
    sources: frozenset[DocumentKey] = frozenset()
    """Documents that the history is of."""
    lost: str = ""
    """Why it has no history although its session has one; empty otherwise."""


class Sessions:
    """Histories and answers of queries.

    Args:
        archive: where they are.
        max_turns: most turns of a history.
        max_chars: longest history.
    """

    def __init__(self, archive: Archive, *, max_turns: int, max_chars: int) -> None:
        self._archive = archive
        self._max_turns = max_turns
        self._max_chars = max_chars

    async def begin(self, body: schemas.QueryRequest) -> SessionQuery:
        """Return a query with the history of its session, before anything is searched.

        Raises:
            InvalidInput: it has a history of its own besides, or sessions are not kept.
        """
        began_ms = now_ms()
        if body.session_id is None:
            return SessionQuery(body, began_ms)
        if body.history:
            raise InvalidInput("Give history or session_id; a session has its own history.")
        if not self._archive.is_on:
            raise InvalidInput("session_id needs kept answers: RAGLAN_GATEWAY_KEEP_ANSWERS_S is 0.")
        try:
            found = await self._archive.history(body.session_id, max(1, self._max_turns // 2))
        except DatabaseUnavailable:
            return SessionQuery(body, began_ms, lost=_LOST)
        told = body.model_copy(update={"history": self._fitting(found.turns)})
        return SessionQuery(told, began_ms, found.sources)

    def keep(
        self,
        asked: SessionQuery,
        cache: CacheControl,
        answer: str,
        reply: bytes,
        passages: Sequence[common_pb2.Passage] | Sequence[schemas.Passage],
    ) -> None:
        """Keep an answer, soon.

        Args:
            asked: from `begin`.
            cache: of the request; `no-store` keeps nothing here either.
            answer: its text.
            reply: the reply to it as JSON.
            passages: what it was made from.
        """
        if not self._archive.is_on or not cache.stores:
            return
        body = asked.body
        record = b'{"request":' + body.model_dump_json().encode() + b',"reply":' + reply + b"}"
        used = frozenset((each.collection, digest(each.document_id)) for each in passages)
        self._archive.keep(
            new_answer(
                answer_id.current(),
                body.session_id,
                body.query,
                answer,
                record,
                began_ms=asked.began_ms,
                sources=used | asked.sources,
            )
        )

    def _fitting(self, turns: list[tuple[str, str]]) -> list[schemas.Turn]:
        """The newest of `turns` that fit the limits, oldest first."""
        room, found = self._max_chars, list[schemas.Turn]()
        for question, answer in reversed(turns):
            room -= len(question) + len(answer)
            if room < 0:
                break
            if answer.strip():
                found.append(schemas.Turn(role="assistant", text=answer))
            found.append(schemas.Turn(role="user", text=question))
        return found[::-1][-self._max_turns :]
