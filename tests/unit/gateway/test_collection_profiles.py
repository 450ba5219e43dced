"""Profiles that collections name: asked for once, kept apart by tenant, and forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from raglan.errors import NotFound, Unavailable
from raglan_gateway.api import schemas
from raglan_gateway.collection_profiles import FRESH_S, CollectionProfiles, CollectionSettings
from raglan_gateway.profiles import Profiles

HELD = {
    "handbook": CollectionSettings("fast", ("sparse",)),
    "wiki": CollectionSettings("", ("token_vectors", "sparse")),
    "notes": CollectionSettings(""),
}


class Index:
    """Holds some collections."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.is_away = False

    async def fetch(self, names: Sequence[str]) -> Mapping[str, CollectionSettings]:
        self.asked.append(names)
        if self.is_away:
            raise Unavailable("away")
        return {name: HELD[name] for name in names if name in HELD}


async def test_a_profile_is_asked_for_once() -> None:
    index = Index()
    profiles = CollectionProfiles(index.fetch)
    for _ in range(2):
        found = await profiles.get("", ["handbook", "wiki"])
        assert found == ({"handbook": "fast", "wiki": ""}, "")
    await profiles.get("", ["wiki", "notes"])
    assert index.asked == [["handbook", "wiki"], ["notes"]]


async def test_what_another_tenant_named_is_not_known() -> None:
    index = Index()
    profiles = CollectionProfiles(index.fetch)
    profiles.learn("acme", "wiki", CollectionSettings("thorough"))
    assert await profiles.get("acme", ["wiki"]) == ({"wiki": "thorough"}, "")
    assert await profiles.get("other", ["wiki"]) == ({"wiki": ""}, "")


async def test_an_index_that_is_away_is_asked_again() -> None:
    index = Index()
    index.is_away = True
    profiles = CollectionProfiles(index.fetch)
    found, reason = await profiles.get("", ["handbook"])
    assert found == {"handbook": ""}
    assert reason == "The profile of 'handbook' is not known: away"
    index.is_away = False
    assert await profiles.get("", ["handbook"]) == ({"handbook": "fast"}, "")


async def test_profiles_are_kept_while_the_index_is_away() -> None:
    index = Index()
    now = 0.0
    profiles = CollectionProfiles(index.fetch, clock=lambda: now)
    await profiles.get("", ["handbook"])
    index.is_away = True
    now += 10 * FRESH_S
    assert await profiles.get("", ["handbook"]) == ({"handbook": "fast"}, "")
    found, reason = await profiles.get("", ["handbook", "wiki"])
    assert found == {"handbook": "fast", "wiki": ""}
    assert "'wiki'" in reason
    index.is_away = False
    await profiles.get("", ["handbook"])
    assert len(index.asked) == 4, "what is kept through an outage is asked for after it"


async def test_what_is_wrong_with_a_request_makes_no_profile_unknown() -> None:
    async def fetch(names: Sequence[str]) -> Mapping[str, CollectionSettings]:
        raise NotFound("There is no collection 'wiki'.")

    assert await CollectionProfiles(fetch).get("", ["wiki"]) == ({"wiki": ""}, "")


async def test_what_does_not_exist_is_told_as_long_as_the_index_can_be_asked() -> None:
    index = Index()
    profiles = CollectionProfiles(index.fetch)
    await profiles.require("", ["handbook", "wiki"])
    for _ in range(2):
        with pytest.raises(NotFound, match="There is no collection 'new'"):
            await profiles.require("", ["handbook", "new"])
    assert index.asked == [["handbook", "wiki"], ["new"], ["new"]], "it may be made meanwhile"
    profiles.learn("", "wiki", None)
    index.is_away = True
    await profiles.require("", ["wiki", "new"])


def test_a_profile_that_no_gateway_knows_any_more_is_none() -> None:
    body = schemas.QueryRequest(query="Why?", collections=["wiki"])
    kept, _ = Profiles().apply(body, "default", {"wiki": "gone"})
    assert kept == body
    changed, _ = Profiles().apply(body, "default", {"wiki": "fast"})
    assert (changed.top_k, changed.rerank) == (5, False)


async def test_a_search_wants_what_any_of_its_collections_holds() -> None:
    profiles = CollectionProfiles(Index().fetch)
    assert await profiles.outputs("", ["notes", "gone"]) == ()
    assert await profiles.outputs("", ["handbook", "wiki"]) == ("sparse", "token_vectors")


async def test_without_the_index_collections_are_searched_by_the_vector_alone() -> None:
    index = Index()
    index.is_away = True
    assert await CollectionProfiles(index.fetch).outputs("", ["wiki"]) == ()
