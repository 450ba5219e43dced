"""Message for a search in a collection that is empty or does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from raglan_cli.client import Gateway, Refused

_NAMED: Final = 10
"""Other collections that are listed at most."""


def about_empty(gateway: Gateway, name: str) -> str:
    """The sentences for a collection without documents; nothing if it has some."""
    held = gateway.collection(name)
    if held is None or held["documents"]:
        return ""
    sentence = f"The collection {name} holds no documents; put some in with: raglan ingest"
    return f"{sentence} PATH -c {name}.{_others(gateway, name)}"


@contextmanager
def naming_others(gateway: Gateway, name: str) -> Iterator[None]:
    """Name the existing collections in the error if collection `name` does not exist."""
    try:
        yield
    except Refused as refused:
        if refused.http == httpx.codes.NOT_FOUND and gateway.collection(name) is None:
            refused.message += _others(gateway, name)
        raise


def _others(gateway: Gateway, name: str) -> str:
    filled = [each for each in gateway.filled_collections() if each != name]
    if not filled:
        return ""
    more = len(filled) - _NAMED
    listed = ", ".join(filled[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f" Collections with documents: {listed}; choose one with --collection."
