"""Revisions of collections, and deletions that the index has yet to carry out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from raglan.errors import Unavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"outage_patience_s": 0.3, "worker_lease_s": 0.6}


def away(method: str) -> Exception | None:
    return Unavailable("Away.") if method in ("Delete", "Upsert") else None


async def test_each_change_is_known(ingester: Any, retriever: Any) -> None:
    before = (await ingester.revisions("default", "small"))[0]
    await ingester.ended(await ingester.submit({"a": "Some words."}))
    first = retriever.revision
    assert await ingester.revisions("default", "small") == (before | {"default": first}, [])
    await ingester.ended(await ingester.submit({"a": "Other words."}))
    assert retriever.revision > first
    assert (await ingester.revisions("default"))[0] == {"default": retriever.revision}
    deleted = await ingester.delete("a")
    assert deleted.revision == retriever.revision
    assert (await ingester.revisions("default"))[0] == {"default": retriever.revision}


async def test_a_change_without_a_revision_is_one_above_what_was_known(
    ingester: Any, retriever: Any
) -> None:
    """The retriever is older than revisions, as for a while during an upgrade."""
    await ingester.ended(await ingester.submit({"a": "Some words."}))
    known = (await ingester.revisions("default"))[0]["default"]
    retriever.is_old = True
    deleted = await ingester.delete("a")
    assert deleted.revision == known + 1


async def test_a_late_revision_changes_nothing(ingester: Any, retriever: Any) -> None:
    await ingester.ended(await ingester.submit({"a": "Some words."}))
    known = (await ingester.revisions("default"))[0]["default"]
    retriever.revision = 0
    await ingester.ended(await ingester.submit({"b": "Some words."}))
    assert (await ingester.revisions("default"))[0]["default"] == known
    retriever.revision = known


async def test_a_deletion_is_finished_when_the_index_is_back(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Some words.", "b": "Other words."}))
    retriever.error = away
    with pytest.raises(Unavailable):
        await ingester.delete("a")
    assert (await ingester.revisions("default"))[1] == ["default"]
    retriever.error = lambda method: None

    async def is_finished() -> bool:
        return (await ingester.revisions("default"))[1] == []

    await until(is_finished)
    assert retriever.chunks("default", "a") == []
    assert retriever.chunks("default", "b") != []
    assert (await ingester.revisions("default"))[0]["default"] == retriever.revision


async def test_what_was_submitted_again_keeps_its_chunks(
    ingester: Any, retriever: Any, until: Any
) -> None:
    await ingester.ended(await ingester.submit({"a": "Old words."}))
    retriever.error = away
    with pytest.raises(Unavailable):
        await ingester.delete("a")
    # Its job is held in the middle: the old chunks are still there.
    retriever.error = lambda method: away(method) if method == "Delete" else None
    retriever.gate.clear()
    job = await ingester.submit({"a": "New words."})
    await asyncio.sleep(0.5)
    assert (await ingester.revisions("default"))[1] == ["default"]
    retriever.error = lambda method: None
    retriever.gate.set()
    await ingester.ended(job)

    async def is_finished() -> bool:
        return (await ingester.revisions("default"))[1] == []

    await until(is_finished)
    assert [chunk.text for chunk in retriever.chunks("default", "a")] == ["New words."]


async def test_a_collection_that_is_gone_has_no_unfinished_deletion(
    ingester: Any, retriever: Any, until: Any
) -> None:
    retriever.add_collection("small")
    await ingester.ended(await ingester.submit({"a": "Some words."}, "small"))
    retriever.error = away
    with pytest.raises(Unavailable):
        await ingester.delete("a", "small")
    del retriever.collections["small"]
    retriever.error = lambda method: None

    async def is_finished() -> bool:
        return (await ingester.revisions("small"))[1] == []

    await until(is_finished)
