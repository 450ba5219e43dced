"""A gateway's archive for tests, and answers to keep in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from raglan.cache import digest
from raglan.database import Database, now_ms, url_of
from raglan_gateway import caller
from raglan_gateway.conversation import archive as archives
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.conversation.records import Bounds, DocumentKey, NewAnswer
from raglan_gateway.store import SCHEMA

BOUNDS = Bounds(age_ms=60_000, answers=10, bytes=10_000, sessions=3)
WAIT_S = 20


@asynccontextmanager
async def archive(url: str, tmp_path: Path, bounds: Bounds = BOUNDS) -> AsyncIterator[Archive]:
    database = Database(url_of(url, tmp_path), SCHEMA)
    lost: list[int] = []
    kept = Archive(database, bounds, lost.append)
    kept.lost_counts = lost  # type: ignore[attr-defined]
    kept.start()
    async with asyncio.timeout(WAIT_S):
        while kept.is_away:
            await asyncio.sleep(0.01)
    try:
        yield kept
    finally:
        await kept.close()
        await database.close()


async def count(kept: Archive, table: type[Any]) -> int:
    def counted(session: Any, owner: Any) -> int:
        return int(session.scalar(sa.select(sa.func.count()).select_from(table)))

    return await kept.run(counted)


def new_answer(
    id_: str,
    session_id: str | None,
    question: str,
    answer: str,
    record: bytes,
    documents: Iterable[tuple[str, str]] = (),
    *,
    history: frozenset[DocumentKey] = frozenset(),
    began_ms: int | None = None,
) -> NewAnswer:
    """An answer to a request of now, unless `began_ms` says otherwise."""
    used = frozenset((collection, digest(document)) for collection, document in documents)
    began_ms = now_ms() if began_ms is None else began_ms
    return archives.new_answer(
        id_, session_id, question, answer, record, began_ms=began_ms, sources=used | history
    )


async def turns(kept: Archive, session_id: str, limit: int) -> list[tuple[str, str]]:
    return (await kept.history(session_id, limit)).turns


async def change(kept: Archive, collection: str, document_ids: Sequence[str] = ()) -> None:
    """Delete documents, as far as the archive sees it."""
    await kept.delete_changed(await kept.note_change(collection, document_ids))


def use(name: str, tenant: str = "") -> None:
    caller.use(caller.Caller(name, tenant))
