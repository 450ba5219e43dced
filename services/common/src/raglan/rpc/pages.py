"""Replies that hold any amount, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Of the items of a reply; a message may have 16 MiB."""

PAGE_CHARS: Final = 2 * 1024 * 1024
"""Of text: 8 MiB when each character takes four bytes."""


def first_page(messages: Iterable[M], *, page_bytes: int | None = None) -> list[M]:
    """Return as many of `messages` as fit into `page_bytes` (`PAGE_BYTES`), and at least one."""
    limit = PAGE_BYTES if page_bytes is None else page_bytes
    page: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if page and size > limit:
            break
        page.append(message)
    return page
