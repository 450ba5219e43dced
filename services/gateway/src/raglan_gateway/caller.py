"""The caller of a request: what it may do, for which tenant, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from raglan import access_tags, tenancy
from raglan.telemetry import semconv, tracing


class Scope(StrEnum):
    """Permission of a key. `admin` includes the others."""

    QUERY = "query"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one caller; 0 for no limit of its own."""

    requests_per_minute: int = 0
    concurrent_requests: int = 0
    tokens_per_minute: int = 0
    """Tokens that the generator writes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller. Only a key or a token decides its fields, never the request's body."""

    id: str
    """Id of the key, or subject of the token; never the secret."""
    tenant: str = ""
    """Owner of collections, jobs, sessions and cache entries; empty for the mesh's own."""
    scopes: frozenset[Scope] = frozenset(Scope)
    collections: tuple[str, ...] | None = None
    """Names of the collections that it may touch; None for all of its tenant's."""
    limits: Limits = Limits()
    access: access_tags.Held = ()
    """Access tags of the documents that it reaches besides open ones; None for every document."""


def held_tags(access: Sequence[str] | None, scopes: Collection[str]) -> access_tags.Held:
    """Return the access tags of a key that was made with these.

    Args:
        access: tags, or `*` among them for every document. None where the key names none: then an
            admin reaches every document, since it may do everything else, and others open ones.
        scopes: of the key.
    """
    if access is None:
        return None if Scope.ADMIN in scopes else ()
    return None if access_tags.ALL in access else tuple(access)


ANONYMOUS: Final = Caller(id="", access=None)
"""The caller where no key is required: everything is allowed."""

_current: ContextVar[Caller] = ContextVar("raglan_caller", default=ANONYMOUS)


def current() -> Caller:
    """Return the caller of the request being served."""
    return _current.get()


def use(caller: Caller) -> None:
    """Make `caller` the current one, for this task and those it starts.

    Raises:
        InvalidInput: its tenant's id is malformed.
    """
    tenancy.use(caller.tenant)
    access_tags.use(caller.access)
    if caller.tenant:
        tracing.current().set_attribute(semconv.TENANT, caller.tenant)
    _current.set(caller)
