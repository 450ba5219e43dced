"""A store as one caller sees it: its tenant's collections, and of them what its tags reach.

The only place where names become qualified, and back, and where access tags are enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any as AnyValue
from typing import Final, TypeVar

import structlog
from raglan import access_tags, tenancy
from raglan.filtering.clauses import All, Any, Clause, Not, Terms

from raglan_retriever.chunks import ACCESS, TENANT, TERMS, Chunk, access_term
from raglan_retriever.collection import Collection
from raglan_retriever.stores.store import (
    Hit,
    Point,
    Relabel,
    Removed,
    Search,
    Size,
    Stats,
    Store,
    Versioned,
)

log: Final = structlog.get_logger()

_Where = TypeVar("_Where", Clause, Clause | None)


class TenantStore:
    """Implements `Store` for the current tenant over a store of all tenants.

    Three things keep tenants apart, each by itself: a tenant's collection is a collection of its
    own in the store; every point that is written names its tenant, and every search, selection,
    deletion and count filters by it; and every chunk that is read is checked again.

    Points of the mesh's own collections name no tenant and are not filtered, only checked.

    Within a tenant the access tags of the caller do the same: every search, selection, deletion,
    labelling and count filters by them, and every chunk that is read is checked again.
    """

    def __init__(self, store: Store, on_foreign: Callable[[int], None]) -> None:
        self._store = store
        self._on_foreign = on_foreign

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def is_remote(self) -> bool:
        return self._store.is_remote

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def collections(self) -> list[Collection]:
        every = await self._store.collections()
        return [_alone(each) for each in every if tenancy.is_own(each.name)]

    def set_aside(self) -> dict[str, str]:
        return {
            tenancy.split(name)[1]: reason
            for name, reason in self._store.set_aside().items()
            if tenancy.is_own(name)
        }

    async def create(self, collection: Collection) -> None:
        await self._store.create(_qualified(collection))

    async def collection(self, name: str) -> Collection:
        return _alone(await self._store.collection(tenancy.qualified(name)))

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        found = await self._store.versioned([tenancy.qualified(name) for name in names])
        return [Versioned(_alone(each.collection), each.revision) for each in found]

    async def describe(self, collection: Collection) -> None:
        await self._store.describe(_qualified(collection))

    async def drop(self, name: str) -> int:
        return await self._store.drop(tenancy.qualified(name))

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        return await self._store.upsert(tenancy.qualified(name), _marked(points))

    def last_read(self, name: str) -> Versioned | None:
        found = self._store.last_read(tenancy.qualified(name))
        return found and Versioned(_alone(found.collection), found.revision)

    async def search(
        self, name: str, searches: Sequence[Search], where: Clause | None
    ) -> list[list[Hit]]:
        found = await self._store.search(tenancy.qualified(name), searches, _own(where))
        foreign = [hit.id for hits in found for hit in hits if not _is_reached_hit(hit)]
        self._report(foreign)
        return [[hit for hit in hits if hit.id not in foreign] for hits in found]

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        found = await self._store.fetch(tenancy.qualified(name), ids)
        self._report(id_ for id_, chunk in found.items() if not _is_reached(chunk))
        return {id_: chunk for id_, chunk in found.items() if _is_reached(chunk)}

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        found = await self._store.points(tenancy.qualified(name), ids)
        foreign = [each.id for each in found if not _is_reached_payload(each.payload)]
        self._report(foreign)
        return [each for each in found if each.id not in foreign]

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        found = await self._store.select(tenancy.qualified(name), _own(where))
        self._report(each.point_id for each in found if not _is_reached(each))
        return [each for each in found if _is_reached(each)]

    async def delete(self, name: str, where: Clause) -> Removed:
        return await self._store.delete(tenancy.qualified(name), _own(where))

    async def label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        def relabel_own(fields: Mapping[str, AnyValue]) -> dict[str, AnyValue]:
            fresh = relabel(fields)
            return _of_tenant(fresh) if fresh else fresh

        return await self._store.label(tenancy.qualified(name), _own(where), relabel_own)

    async def count(self, name: str, where: Clause | None) -> int:
        return await self._store.count(tenancy.qualified(name), _own(where))

    async def count_by_document(
        self, name: str, document_ids: Sequence[str], where: Clause | None
    ) -> list[int]:
        qualified = tenancy.qualified(name)
        return await self._store.count_by_document(qualified, document_ids, _own(where))

    async def size(self, name: str) -> Size:
        return await self._store.size(tenancy.qualified(name))

    async def stats(self, name: str) -> Stats:
        return await self._store.stats(tenancy.qualified(name))

    def backlog_s(self) -> float:
        return self._store.backlog_s()

    def _report(self, foreign: Iterable[str]) -> None:
        """Count and log chunks beyond the caller's reach, by the ids of their points."""
        if ids := list(foreign):
            self._on_foreign(len(ids))
            log.error("foreign chunks were dropped", chunks=len(ids), first=ids[0])


def _alone(collection: Collection) -> Collection:
    """Return the description under the name that its owner uses."""
    _, name = tenancy.split(collection.name)
    return collection if name == collection.name else replace(collection, name=name)


def _qualified(collection: Collection) -> Collection:
    name = tenancy.qualified(collection.name)
    return collection if name == collection.name else replace(collection, name=name)


def _own(where: _Where) -> Clause | _Where:
    """Return `where`, narrowed to the points of the current tenant that its caller reaches."""
    clauses: list[Clause] = []
    if tenant := tenancy.current():
        clauses.append(Terms((_term(tenant),)))
    if (held := access_tags.current()) is not None:
        is_open = Not(Terms((access_term(),)))
        tags = tuple(map(access_term, held))
        clauses.append(Any((is_open, Terms(tags))) if tags else is_open)
    if not clauses:
        return where
    return All((*clauses, where)) if where is not None else All(tuple(clauses))


def _is_reached(chunk: Chunk) -> bool:
    return chunk.tenant == tenancy.current() and access_tags.allows(chunk.access)


def _is_reached_hit(hit: Hit) -> bool:
    return hit.chunk is None or _is_reached(hit.chunk)


def _is_reached_payload(payload: Mapping[str, object]) -> bool:
    access = payload.get(ACCESS, ())
    return payload.get(TENANT, "") == tenancy.current() and access_tags.allows(
        access if isinstance(access, list) else ()
    )


def _marked(points: Sequence[Point]) -> Sequence[Point]:
    """Return the points with the name of the current tenant."""
    if not tenancy.current():
        return points
    return [replace(point, payload=_of_tenant(point.payload)) for point in points]


def _of_tenant(payload: dict[str, AnyValue]) -> dict[str, AnyValue]:
    """Return fields of a payload with the name of the current tenant."""
    if not (tenant := tenancy.current()):
        return payload
    return {**payload, TENANT: tenant, TERMS: [*payload[TERMS], _term(tenant)]}


def _term(tenant: str) -> str:
    """Return the term of a tenant's points; terms of metadata begin with `[` or `#`."""
    return f"@{tenant}"
