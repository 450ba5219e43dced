"""Keys in the database: made, listed, found, rotated, revoked; each change with its audit entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import sqlalchemy as sa
from raglan import access_tags
from raglan.database import Database, now_ms
from raglan.errors import Conflict, NotFound
from raglan.identifiers import shortened
from sqlalchemy.orm import Session

from raglan_gateway.access import api_key, audit
from raglan_gateway.caller import Limits, Scope, held_tags
from raglan_gateway.store.model import ApiKey

T = TypeVar("T")
MAX_KEYS: Final = 10_000
"""Keys that are kept; past it, those revoked longest ago make room."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The keys that a caller may see and change: none that allows more than its own does."""

    tenant: str | None = None
    """Whose keys; None for those of all."""
    collections: frozenset[str] | None = None
    """Keys of no other collections; None for any."""
    access: access_tags.Held = None
    """Keys that hold no other access tags; None for any."""

    def includes(self, key: ApiKey) -> bool:
        """Return whether a key is among them."""
        if self.tenant is not None and key.tenant != self.tenant:
            return False
        if not holds(self.access, held_tags(key.access, key.scopes)):
            return False
        if self.collections is None:
            return True
        return key.collections is not None and self.collections.issuperset(key.collections)


def holds(held: access_tags.Held, wanted: access_tags.Held) -> bool:
    """Return whether a caller who holds `held` reaches all that one with `wanted` does."""
    return held is None or (wanted is not None and set(held).issuperset(wanted))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made."""

    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    collections: tuple[str, ...] | None
    limits: Limits
    expires_ms: int | None
    access: tuple[str, ...] | None = None
    """Access tags; see `caller.held_tags`."""


class KeyStore:
    """The keys of all gateways.

    Args:
        database: of the gateway.
        keep_entries: entries of the audit log that are kept.
        made: told that there is a key.
        changed: told the id of each key that this process changes.
        has_other_admin: True if admins have another way in than keys of this store.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_entries: int,
        made: Callable[[], None] = lambda: None,
        changed: Callable[[str], None] = lambda id_: None,
        has_other_admin: bool = False,
    ) -> None:
        self._database = database
        self._keep_entries = keep_entries
        self._made = made
        self._changed = changed
        self._has_other_admin = has_other_admin

    async def has_any(self) -> bool:
        """Return whether a key was ever made."""
        query = sa.select(ApiKey.id).limit(1)
        return await self._database.run(lambda s: s.scalars(query).first() is not None)

    async def find(self, id_: str) -> ApiKey | None:
        """Return the key with an id, revoked ones included."""
        return await self._database.run(lambda session: session.get(ApiKey, id_))

    async def create(self, new: NewKey) -> tuple[ApiKey, str]:
        """Make a key; return it with its text, which is not stored.

        Raises:
            Conflict: it would be the first and no admin, or there are too many.
        """
        id_ = api_key.new_id()
        text, digest = api_key.new_key(id_)
        row = audit.entry("key.create", id_)

        def work(session: Session) -> ApiKey:
            self._make_room(session, new)
            key = ApiKey(
                id=id_,
                name=new.name,
                tenant=new.tenant,
                scopes=[str(scope) for scope in new.scopes],
                collections=None if new.collections is None else list(new.collections),
                access=None if new.access is None else list(new.access),
                requests_per_minute=new.limits.requests_per_minute,
                concurrent_requests=new.limits.concurrent_requests,
                tokens_per_minute=new.limits.tokens_per_minute,
                hash=digest,
                created_ms=now_ms(),
                expires_ms=new.expires_ms,
            )
            session.add(key)
            audit.add(session, [row], self._keep_entries)
            return key

        key = await self._change(id_, work)
        self._made()
        return key, text

    async def keys(self, *, reach: Reach, after: str, limit: int) -> list[ApiKey]:
        """List keys by id.

        Args:
            reach: of the caller.
            after: id of the key before the first; "" begins.
            limit: most keys.
        """
        query = sa.select(ApiKey).where(ApiKey.id > after).order_by(ApiKey.id)
        if reach.tenant is not None:
            query = query.where(ApiKey.tenant == reach.tenant)

        def work(session: Session) -> list[ApiKey]:
            # The database cannot compare lists of collections; there are `MAX_KEYS` rows at most.
            return list(islice(filter(reach.includes, session.scalars(query)), limit))

        return await self._database.run(work)

    async def get(self, id_: str, *, reach: Reach) -> ApiKey:
        """Return one key.

        Raises:
            NotFound: there is no such key within reach.
        """
        return await self._database.run(lambda session: _within(session, id_, reach))

    async def revoke(self, id_: str, *, reach: Reach) -> ApiKey:
        """End a key; again is no error."""
        row = audit.entry("key.revoke", id_)

        def work(session: Session) -> ApiKey:
            key = _within(session, id_, reach)
            if key.revoked_ms is None:
                key.revoked_ms = now_ms()
                audit.add(session, [row], self._keep_entries)
            return key

        return await self._change(id_, work)

    async def rotate(self, id_: str, *, reach: Reach, overlap_ms: int) -> tuple[ApiKey, str]:
        """Give a key a new secret; the one before it is valid for `overlap_ms` longer.

        Raises:
            Conflict: the key is revoked.
        """
        text, digest = api_key.new_key(id_)
        row = audit.entry("key.rotate", id_)

        def work(session: Session) -> ApiKey:
            key = _within(session, id_, reach)
            if key.revoked_ms is not None:
                raise Conflict(f"The key {id_} is revoked; make another one.")
            key.rotated_ms = now_ms()
            key.former_hash, key.former_until_ms = key.hash, key.rotated_ms + overlap_ms
            key.hash = digest
            audit.add(session, [row], self._keep_entries)
            return key

        return await self._change(id_, work), text

    async def _change(self, id_: str, work: Callable[[Session], T]) -> T:
        try:
            return await self._database.run(work)
        finally:  # a commit whose answer was lost has happened as well
            self._changed(id_)

    def _make_room(self, session: Session, new: NewKey) -> None:
        count = session.execute(sa.select(sa.func.count()).select_from(ApiKey)).scalar_one()
        is_admin = Scope.ADMIN in new.scopes and not new.tenant
        if count == 0 and not (is_admin or self._has_other_admin):
            raise Conflict(
                "The first key needs the scope admin and no tenant, because keys are required from "
                "then on; make that one first, or set RAGLAN_GATEWAY_ADMIN_KEY."
            )
        if count < MAX_KEYS:
            return
        oldest = sa.select(ApiKey).where(ApiKey.revoked_ms.is_not(None))
        gone = session.scalars(oldest.order_by(ApiKey.revoked_ms).limit(1)).first()
        if gone is None:
            raise Conflict(f"There are {count} keys; the limit is {MAX_KEYS}. Revoke some.")
        session.delete(gone)


def _within(session: Session, id_: str, reach: Reach) -> ApiKey:
    key = session.get(ApiKey, id_)
    if key is None or not reach.includes(key):
        raise NotFound(f"There is no key {shortened(id_)}.")
    return key
