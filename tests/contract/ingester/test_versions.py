"""Versions of documents through the ingester and a real index, against a model of the history."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raglan.errors import NotFound, Unavailable
from raglan.v1 import ingester_pb2
from raglan_ingester.clients.retriever import RetrieverClient
from raglan_ingester.model import EarlierVersion
from real_index import Index, serving
from sqlalchemy.orm import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")
shared = pytest_asyncio.fixture(scope="module", loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED
MAX_VERSIONS = 2
IDS = ("a", "b")


@shared
async def index(
    stack: AsyncExitStack, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Index]:
    held = await serving(stack, tmp_path_factory.mktemp("index"))
    await held.create()
    yield held


@shared
async def addresses(stack: AsyncExitStack, embedder: Any, index: Index, serve: Any) -> Any:
    return {"embedder_address": await serve(embedder), "retriever_address": index.address}


def text(id_: str, variant: int) -> str:
    return f"The shared text of {id_} in the wording {variant}."


async def put(ingester: Any, collection: str, **variants: int) -> None:
    documents = {id_: text(id_, variant) for id_, variant in variants.items()}
    job = await ingester.ended(await ingester.submit(documents, collection))
    assert job.status == SUCCEEDED, job


async def listed(ingester: Any, collection: str, id_: str) -> list[Any]:
    request = ingester_pb2.GetDocumentRequest(collection=collection, document_id=id_)
    return list((await ingester.call(ingester.stub.ListVersions, request)).versions)


async def instant() -> int:
    """A moment with nothing before or after it within the same millisecond."""
    await asyncio.sleep(0.002)
    now = time.time_ns() // 1_000_000
    await asyncio.sleep(0.002)
    return now


class History:
    """What a collection that keeps versions has to find, by instants between its changes."""

    def __init__(self) -> None:
        self.versions: dict[str, list[tuple[int, int]]] = {id_: [] for id_ in IDS}
        """Of each document (time, variant), the oldest first."""

    def put(self, at: int, variants: dict[str, int]) -> None:
        for id_, variant in variants.items():
            held = self.versions[id_]
            if not held or held[-1][1] != variant:
                held.append((at, variant))
                del held[: -1 - MAX_VERSIONS]

    def delete(self, id_: str) -> None:
        self.versions[id_] = []

    def valid(self, at: int | None) -> set[str]:
        found = set()
        for id_, versions in self.versions.items():
            if begun := [variant for since, variant in versions if at is None or since <= at]:
                found.add(text(id_, begun[-1]))
        return found


VARIANTS = st.integers(0, 2)
PUT = st.dictionaries(st.sampled_from(IDS), VARIANTS, min_size=1)
CHANGES = st.lists(PUT | st.sampled_from(IDS), min_size=1, max_size=7)
LOOKS = st.lists(st.integers(0, 100), min_size=3, max_size=6)


# Threads of the servers in this process draw from `random` too, for their pauses, while it draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES, looks=LOOKS)
async def test_a_search_as_of_any_instant_equals_a_model_of_the_history(
    ingester: Any, index: Index, changes: list[Any], looks: list[int]
) -> None:
    """A change is what is submitted together, or the id of a document that is deleted."""
    name = f"h{uuid.uuid4().hex[:12]}"
    await index.create(name, max_versions=MAX_VERSIONS)
    history, instants = History(), [await instant()]
    for change in changes:
        if isinstance(change, dict):
            history.put(instants[-1], change)
            await put(ingester, name, **change)
        elif history.versions[change]:
            history.delete(change)
            await ingester.delete(change, name)
        instants.append(await instant())
    for at in (None, *(instants[look % len(instants)] for look in looks)):
        # A version begins after the instant before its change: the next one is the first in it.
        later = None if at is None else at - 1
        assert await index.texts(name, at) == history.valid(later), at
    assert await index.size(name) == sum(len(each) for each in history.versions.values())
    every = ingester_pb2.DeleteDocumentsRequest(collection=name)
    await ingester.call(ingester.stub.DeleteDocuments, every)


async def test_versions_are_listed_with_the_times_at_which_they_took_turns(
    ingester: Any, index: Index
) -> None:
    await index.create("small", max_versions=5)
    for variant in (0, 1, 0):
        await put(ingester, "small", a=variant)
    newest, middle, oldest = await listed(ingester, "small", "a")
    assert [each.version for each in (oldest, middle, newest)] == [1, 2, 3]
    assert (oldest.valid_to, middle.valid_to) == (middle.valid_from, newest.valid_from)
    assert not newest.HasField("valid_to")
    assert oldest.sha256 == newest.sha256 != middle.sha256
    with pytest.raises(NotFound):
        await listed(ingester, "small", "b")


async def test_tags_of_a_version_and_of_its_document_hold_for_its_text(
    ingester: Any, index: Index
) -> None:
    await index.create("small", max_versions=5)
    head = ingester_pb2.DocumentHeader(document_id="a", media_type="text/plain")
    head.access.tags.extend(["crew", "yard"])
    for variant in (0, 1):
        pair = (head, text("a", variant).encode())
        assert (await ingester.ended(await ingester.submit([pair], "small"))).status == SUCCEEDED
    request = ingester_pb2.GetDocumentRequest(collection="small", document_id="a", version=1)

    async def read(*held: str) -> str:
        reply = await ingester.call(ingester.stub.GetDocument, request, held=held)
        return str(reply.text)

    assert await read("yard") == text("a", 0)
    narrower = ingester_pb2.UpdateDocumentRequest(collection="small", document_id="a")
    narrower.access.tags.append("crew")
    await ingester.call(ingester.stub.UpdateDocument, narrower)
    with pytest.raises(NotFound):
        await read("yard")
    # To open the document does not open what was closed when it was written.
    wider = ingester_pb2.UpdateDocumentRequest(collection="small", document_id="a")
    wider.access.SetInParent()
    await ingester.call(ingester.stub.UpdateDocument, wider)
    assert await read("yard") == text("a", 0)
    with pytest.raises(NotFound):
        await ingester.call(ingester.stub.GetDocument, request, held=())


async def test_a_version_whose_time_is_up_goes_from_the_index_too(
    ingester: Any, index: Index, until: Any
) -> None:
    await index.create("small", max_versions=5)
    for variant in (0, 1, 2):
        await put(ingester, "small", a=variant)
    assert await index.size("small") == 3

    def expire(session: Session) -> int:
        first = sa.update(EarlierVersion).where(
            EarlierVersion.collection == "small", EarlierVersion.number == 1
        )
        return session.execute(first.values(expires_ms=1)).rowcount

    assert await ingester.in_database(expire) == 1

    async def is_gone() -> bool:
        return await index.size("small") == 2

    await until(is_gone, 30)
    assert [each.version for each in await listed(ingester, "small", "a")] == [3, 2]


async def test_an_index_that_is_away_at_the_switch_follows_later(
    ingester: Any, index: Index, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index.create("small", max_versions=5)
    await put(ingester, "small", a=0)
    before = await instant()
    keep, calls = RetrieverClient.keep_versions, []

    async def away(self: RetrieverClient, *args: Any, **fields: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise Unavailable("away")
        await keep(self, *args, **fields)

    monkeypatch.setattr(RetrieverClient, "keep_versions", away)
    await put(ingester, "small", a=1)
    assert await index.texts("small", before) == {text("a", 0)}
    assert await index.texts("small", None) == {text("a", 1)}

    async def is_finished() -> bool:
        return (await ingester.revisions("small"))[1] == []

    await until(is_finished, 30)
    assert len(calls) >= 2
    assert await index.texts("small", before) == {text("a", 0)}
