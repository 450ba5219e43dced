"""Access tags of documents, and those that the caller of the work at hand holds.

A document without tags is open to every caller of its collection; one with tags is found by
callers who hold at least one of them. The gateway takes a caller's tags from its verified key or
token. From there they travel like the tenant: as a context variable within a process, as gRPC
metadata between two. Work that names no tags reaches open documents alone, so that what was
forgotten shows nothing. Services that act for all callers, such as a job, say so (`serving(None)`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from raglan.context_variables import restore
from raglan.errors import Forbidden, InvalidInput
from raglan.identifiers import shortened

TAG: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}$"
MAX_TAGS: Final = 64
"""Of a document, and of a caller: metadata of a call holds about 8 KiB."""

METADATA: Final = "raglan-access"
"""The key of gRPC metadata that carries the caller's tags, separated by commas; `*` is all."""

ALL: Final = "*"

NOBODY: Final = ("-",)
"""Tags of what only callers reach who reach everything: the pattern lets no one hold it."""

Held = tuple[str, ...] | None
"""Tags of a caller; None reaches every document."""

_current: ContextVar[Held] = ContextVar("raglan_access", default=())


def current() -> Held:
    """Return the tags of the caller being served; None where it reaches every document."""
    return _current.get()


def use(held: Held) -> None:
    """Make `held` the current tags, for this task and those it starts."""
    _current.set(held)


@contextmanager
def serving(held: Held) -> Iterator[None]:
    """Make `held` the current tags for a block."""
    token = _current.set(held)
    try:
        yield
    finally:
        restore(token, held)


def allows(tags: Iterable[str]) -> bool:
    """Return whether the current caller reaches a document with these tags."""
    return reaches(_current.get(), tags)


def reaches(held: Held, tags: Iterable[str]) -> bool:
    """Return whether a caller who holds `held` reaches a document with these tags.

    For threads, which may not have the current caller.
    """
    tags = tuple(tags)
    return not tags or held is None or not set(tags).isdisjoint(held)


def check(tags: Sequence[str], *, of: str = "access") -> tuple[str, ...]:
    """Return tags in canonical form: sorted, each once.

    Args:
        tags: as they were given.
        of: what they belong to, for the message.

    Raises:
        InvalidInput: there are too many, or one has another form.
    """
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"{of} has {len(tags)} tags; the limit is {MAX_TAGS}.")
    for tag in tags:
        if not re.fullmatch(TAG[1:-1], tag):
            raise InvalidInput(
                f"{of}: {shortened(tag)} cannot be a tag: use 1 to 64 letters, digits and "
                "any of ._:/@+-, the first a letter or digit."
            )
    return tuple(sorted(set(tags)))


def narrowed(own: Sequence[str], document: Sequence[str]) -> tuple[str, ...]:
    """Return tags of an earlier version that lets in nobody whom either of the two keeps out.

    Args:
        own: of the version when it was replaced.
        document: of the document now.
    """
    if not own or not document:
        return tuple(own or document)
    return tuple(sorted({*own} & {*document})) or NOBODY


def require(tags: Iterable[str]) -> None:
    """Check that the current caller may give documents these tags.

    Raises:
        Forbidden: it does not hold one of them.
    """
    held = _current.get()
    if held is None:
        return
    if foreign := sorted(set(tags) - set(held)):
        raise Forbidden(
            f"The key does not hold the access tag {shortened(foreign[0])}, so it can give it to "
            "no document; an admin names the tags of a key when making it (raglan keys create "
            "--access)."
        )


def to_metadata() -> list[tuple[str, str]]:
    """Return what a call that leaves carries of the current tags."""
    held = _current.get()
    if held is None:
        return [(METADATA, ALL)]
    return [(METADATA, ",".join(held))] if held else []


def from_metadata(values: Sequence[object]) -> Held:
    """Return the tags that an incoming call carries.

    Raises:
        InvalidInput: they are given twice, or are none.
    """
    if not values:
        return ()
    if len(values) > 1 or not isinstance(values[0], str):
        raise InvalidInput(f"The call gives {METADATA} {len(values)} times; give it once.")
    if values[0] == ALL:
        return None
    return check(values[0].split(","), of=METADATA)
