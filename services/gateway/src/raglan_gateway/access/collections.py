"""The collections that the current caller may touch. Every request to the index passes here."""

from __future__ import annotations

from collections.abc import Iterable

from raglan.errors import Forbidden
from raglan.identifiers import shortened

from raglan_gateway import caller


def is_allowed(name: str) -> bool:
    """Return whether the current caller may touch a collection."""
    allowed = caller.current().collections
    return allowed is None or name in allowed


def require(names: Iterable[str]) -> None:
    """Check that the current caller may touch all of `names`.

    Raises:
        Forbidden: its key does not name one of them.
    """
    for name in names:
        if not is_allowed(name):
            raise Forbidden(
                f"The key does not allow the collection {shortened(name)}; an admin names the "
                "collections of a key when making it (raglan keys create --collection)."
            )


def refuse_limited(what: str) -> None:
    """Check that the current caller may touch all collections: `what` shows those of others too.

    Raises:
        Forbidden: its key names the collections that it allows.
    """
    if caller.current().collections is not None:
        raise Forbidden(f"{what} cover all collections; use a key that is not limited to some.")
