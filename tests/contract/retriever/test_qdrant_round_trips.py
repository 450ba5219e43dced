"""Round trips of a search to a Qdrant server, counted below its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.qdrant import QdrantStore

pytestmark = pytest.mark.loop_stall_s(2.0)  # the server computes in this process

_SETTLED: int = 100
"""Passes of the event loop after which everything that could start beside a request has."""

TEXTS = {
    "stem": "Mesenchymal stem cells (MSCs) are multipotent.",
    "long": "Grafts of mesenchymal stem cells lower the rate of rejection.",
    "short": "MSC therapy was stopped.",
    "other": "Trains leave from the north gate at noon.",
    "code": "Error KX-88213 means that the gate is open.",
}


@dataclass
class Trips(httpx.AsyncBaseTransport):
    """Sends requests on, and counts how often one begins only after another has ended."""

    below: httpx.AsyncHTTPTransport = field(default_factory=httpx.AsyncHTTPTransport)
    count: int = 0
    requests: list[str] = field(default_factory=list)
    _has_ended: bool = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self._has_ended:
            self.count, self._has_ended = self.count + 1, False
        for _ in range(_SETTLED):
            await asyncio.sleep(0)
        response = await self.below.handle_async_request(request)
        await response.aread()
        self._has_ended = True
        return response

    async def aclose(self) -> None:
        await self.below.aclose()

    def restart(self) -> None:
        self.count, self._has_ended = 0, True
        self.requests.clear()


@pytest.fixture
async def counted(qdrant_http, chunk, vectors, model) -> AsyncIterator[tuple[Index, Trips]]:
    url, _ = qdrant_http
    trips = Trips()
    client = AsyncQdrantClient(url, check_compatibility=False, transport=trips)
    store = QdrantStore(client)
    index = Index(store, limits=Limits(), language="en")
    for name in ("c", "other"):
        await index.create(name, model, 1000, 0)
        chunks = [chunk(f"{id_}#0", text) for id_, text in TEXTS.items()]
        await index.upsert(name, model, chunks, vectors(len(chunks)))
    await index.versioned(["c", "other"])  # as a gateway does before each search
    trips.restart()
    yield index, trips
    await store.close()


SEARCHES: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "by words": {"mode": "lexical", "text": "open gate"},
    "hybrid": {"text": "open gate"},
    "filtered": {"text": "open gate", "where": Terms((term("document_id", "code"),))},
    "identifier that is held": {"text": "error KX-88213"},
    "identifier that is not held": {"text": "error KX-99999"},
    "one of two identifiers": {"text": "KX-88213 or KX-99999"},
    "short form": {"text": "Do MSCs help?"},
    "long form": {"text": "Do mesenchymal stem cells help?"},
    "short form and identifier": {"text": "MSC KX-88213", "mode": "lexical"},
    "several collections": {"text": "Do MSCs help?", "collections": ("c", "other")},
    "without a hit": {"text": "zebra", "mode": "lexical"},
}


@pytest.mark.parametrize("kind", SEARCHES)
async def test_a_search_takes_two_round_trips_at_most(counted, vectors, model, kind):
    index, trips = counted
    asked = {"collections": ("c",), "mode": "hybrid", "limit": 10} | SEARCHES[kind]
    results = await index.search(Query(vector=vectors(1)[0], model=model, **asked))
    assert bool(results.found) is (kind != "without a hit")
    assert trips.count == 2 - (not results.found), trips.requests
    if "form" in kind:
        assert results.synonyms


async def test_the_first_search_of_a_process_reads_the_description_before(
    qdrant_http, counted, vectors, model
):
    url, _ = qdrant_http
    trips = Trips()
    store = QdrantStore(AsyncQdrantClient(url, check_compatibility=False, transport=trips))
    index = Index(store, limits=Limits(), language="en")
    query = Query(("c",), "hybrid", 10, "open gate", vectors(1)[0], model)
    assert (await index.search(query)).found
    assert trips.count == 3
    trips.restart()
    assert (await index.search(query)).found
    assert trips.count == 2
    await store.close()


async def test_a_search_after_a_change_by_another_retriever_takes_one_more(
    qdrant_http, counted, chunk, vectors, model
):
    """Of a collection that others change, the description is read first: nothing is done twice."""
    url, _ = qdrant_http
    index, trips = counted
    other = QdrantStore(AsyncQdrantClient(url, check_compatibility=False))
    writer = Index(other, limits=Limits(), language="en")
    query = Query(("c",), "hybrid", 10, "open gate", vectors(1)[0], model)
    seen = []
    for number in range(6):
        if number in (1, 2, 3):
            await writer.upsert("c", model, [chunk(f"{number}#0")], vectors(1))
        trips.restart()
        await index.search(query)
        batches = sum(each.endswith("/batch") for each in trips.requests)
        seen.append((trips.count, batches))
    await other.close()
    # Two searches where a change was met, else one.
    assert seen == [(2, 1), (3, 2), (3, 1), (3, 1), (3, 1), (2, 1)]


async def test_a_change_by_the_retriever_itself_takes_no_more(counted, chunk, vectors, model):
    index, trips = counted
    for number in range(3):
        new = chunk(f"{number}#0", f"Gate {number} is new.")
        written = await index.upsert("c", model, [new], vectors(1))
        trips.restart()
        found = await index.search(Query(("c",), "hybrid", 5, "gate", vectors(1)[0], model))
        assert (trips.count, found.revisions["c"]) == (2, written)


async def test_chunks_of_all_documents_are_counted_in_one_request(counted):
    index, trips = counted
    assert await index.count("c", ["stem", "ghost", "code", "stem"]) == [1, 0, 1, 1]
    assert trips.count == 1
    assert sum(each.endswith("/facet") for each in trips.requests) == 1


async def test_copies_take_a_round_trip_more_for_each_limit_of_them(counted, chunk, vectors, model):
    """Copies of one text take one place, so what is below them is read then."""
    index, trips = counted
    copies = [chunk(f"copy{n}#0", "The one text of all.") for n in range(5)]
    await index.upsert("c", model, copies, np.repeat(vectors(1, seed=9), 5, axis=0))
    await index.versioned(["c"])
    trips.restart()
    query = Query(("c",), "lexical", 2, "the one text of all gate")
    assert (await index.search(query)).found[0].duplicates == 4
    assert trips.count > 2
