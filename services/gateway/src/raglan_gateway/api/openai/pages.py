"""Pages of lists as OpenAI's API has them: cursors are ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Query

Limit: TypeAlias = Annotated[int, Query(ge=1, le=100)]
Order: TypeAlias = Literal["asc", "desc"]
MAX_PAGE: Final = 100


def page(
    items: Sequence[dict[str, Any]],
    *,
    limit: int,
    after: str | None = None,
    before: str | None = None,
) -> dict[str, Any]:
    """Cut one page out of `items`; an id that is not among them stands for no cut."""
    ids = [item["id"] for item in items]
    begin = ids.index(after) + 1 if after in ids else 0
    end = ids.index(before) if before in ids else len(items)
    shown = list(items[begin:end])
    has_more = len(shown) > limit
    # Before an id, the page is the one that ends there.
    shown = shown[-limit:] if before in ids and after not in ids else shown[:limit]
    return listed(shown, has_more=has_more)


def listed(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Build the reply of a list."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
