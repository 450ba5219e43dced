"""Revisions of the collections of a Qdrant server, in a collection of their own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from qdrant_client import AsyncQdrantClient, models
from raglan.errors import Conflict, NotFound

from raglan_retriever.stores.qdrant_layout import Layout
from raglan_retriever.stores.qdrant_wire import errors, seconds_left
from raglan_retriever.stores.store import LEXICAL

REVISIONS: Final = "raglan.revisions"
"""A collection with one point for the revision of each other one. No collection of a user can have
this name. The metadata of the collections could not hold it: it has no conditional update."""

_REVISION: Final = "revision"


class Revisions:
    """Reads and raises revisions; see `raglan_retriever.stores.store.Versioned`."""

    def __init__(self, client: AsyncQdrantClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def read(self, names: Sequence[str]) -> list[int]:
        """Return the revision of each collection; 0 where it has none."""
        ids = [_point_id(name) for name in names]
        try:
            with errors(REVISIONS):
                records = await self._client.retrieve(REVISIONS, ids, timeout=seconds_left())
        except NotFound:
            with suppress(Conflict), errors(REVISIONS):  # another retriever was faster
                await self._create()
            return [0] * len(ids)
        found = {str(record.id): (record.payload or {})[_REVISION] for record in records}
        return [found.get(id_, 0) for id_ in ids]

    async def advance(self, name: str) -> int:
        """Raise a collection's revision after a change of it; a revision that it has reached.

        Replicas may do so at once. The condition lets one of them write what follows `before`, and
        the others find it written: after their change too, since all read `before` after theirs.
        """
        (before,) = await self.read([name])
        # The first one is above what a lost collection of revisions may have held.
        after = before + 1 if before else time.time_ns() // 1_000
        is_unchanged = models.FieldCondition(key=_REVISION, match=models.MatchValue(value=before))
        point = models.PointStruct(
            id=_point_id(name), vector={}, payload={_REVISION: after, "collection": name}
        )
        with errors(REVISIONS):
            await self._client.upsert(
                REVISIONS, [point], wait=True, update_filter=models.Filter(must=[is_unchanged])
            )
        return after

    async def _create(self) -> None:
        await self._client.create_collection(
            REVISIONS,
            vectors_config={},
            # No point has one, but a collection without vectors may be refused.
            sparse_vectors_config={LEXICAL: models.SparseVectorParams()},
            # A few points: every further shard would be one more to ask.
            shard_number=1,
            **self._layout.replication(),
        )
        # A server in strict mode refuses conditions on fields without an index.
        await self._client.create_payload_index(
            REVISIONS, _REVISION, models.PayloadSchemaType.INTEGER, wait=True
        )


def _point_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))
