"""The tenant of the work at hand, and the names by which its collections are kept.

The gateway takes the tenant from a verified key. From there it travels beside the deadline: as a
context variable within a process, as gRPC metadata between two. The empty tenant is the mesh's
own, and everything that was stored before there were tenants.

A tenant names its collections freely; stores keep each under a qualified name, `tenant~name`. The
tilde is in no id and in no name, and legal in the names of folders and of Qdrant's collections, so
that one form serves everywhere and no two tenants share a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from raglan.context_variables import restore
from raglan.errors import Forbidden, InvalidInput
from raglan.identifiers import shortened

TENANT_ID: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Without capitals: on some file systems two names that differ only in them are one folder."""

METADATA: Final = "raglan-tenant"
"""The key of gRPC metadata that carries the tenant."""

SEPARATOR: Final = "~"
MAX_QUALIFIED_CHARS: Final = 63 + 1 + 64

_current: ContextVar[str] = ContextVar("raglan_tenant", default="")


def current() -> str:
    """Return the tenant of the request or job being served; empty for the mesh's own."""
    return _current.get()


def use(tenant: str) -> None:
    """Make `tenant` the current one, for this task and those it starts.

    Raises:
        InvalidInput: it is no tenant's id.
    """
    _current.set(check_tenant(tenant))


@contextmanager
def serving(tenant: str) -> Iterator[None]:
    """Make `tenant` the current one for a block."""
    token = _current.set(check_tenant(tenant))
    try:
        yield
    finally:
        restore(token, tenant)


@contextmanager
def owner_of(collection: str) -> Iterator[str]:
    """Make the owner of a qualified name the current tenant for a block; yields the name alone."""
    tenant, name = split(collection)
    with serving(tenant):
        yield name


def check_tenant(tenant: str) -> str:
    """Return `tenant` if it is the id of one, or empty.

    Raises:
        InvalidInput: it is not.
    """
    if tenant and not re.fullmatch(TENANT_ID[1:-1], tenant):
        raise InvalidInput(
            f"{shortened(tenant)} cannot be a tenant's id: use 1 to 63 of a-z, 0-9, '_' and '-', "
            "the first a letter or digit."
        )
    return tenant


def refuse_tenants(what: str) -> None:
    """Raise Forbidden if the current work is a tenant's: `what` shows or changes everyone's."""
    if _current.get():
        raise Forbidden(f"{what} cover the whole mesh; use a key that belongs to no tenant.")


def qualified(name: str) -> str:
    """Return the name by which a collection of the current tenant is kept.

    Raises:
        InvalidInput: `name` is qualified already, which no caller may choose.
    """
    if SEPARATOR in name:
        raise InvalidInput(f"{shortened(name)} cannot name a collection: it holds a tilde.")
    tenant = _current.get()
    return f"{tenant}{SEPARATOR}{name}" if tenant else name


def split(collection: str) -> tuple[str, str]:
    """Return the tenant and the name that a qualified name consists of."""
    tenant, _, name = collection.rpartition(SEPARATOR)
    return tenant, name


def is_own(collection: str) -> bool:
    """Return whether a qualified name is of the current tenant."""
    return split(collection)[0] == _current.get()


def unqualified(message: str) -> str:
    """Return `message` with the current tenant's collections called by the names it chose."""
    tenant = _current.get()
    return message.replace(f"'{tenant}{SEPARATOR}", "'") if tenant else message
