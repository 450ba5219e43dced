"""Profiles that collections name: asked for once, kept apart by tenant, and forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raglan.errors import Unavailable
from raglan_gateway.api import schemas
from raglan_gateway.collection_profiles import CollectionProfiles
from raglan_gateway.profiles import Profiles


class Index:
    """Knows the profile of `handbook`."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.is_away = False

    async def fetch(self, names: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(names)
        if self.is_away:
            raise Unavailable("away")
        return {name: "fast" for name in names if name == "handbook"}


async def test_a_profile_is_asked_for_once() -> None:
    index = Index()
    profiles = CollectionProfiles(index.fetch)
    for _ in range(2):
        found = await profiles.get("", ["handbook", "wiki"])
        assert found == {"handbook": "fast", "wiki": ""}
    await profiles.get("", ["wiki", "notes"])
    assert index.asked == [["handbook", "wiki"], ["notes"]]


async def test_what_another_tenant_named_is_not_known() -> None:
    index = Index()
    profiles = CollectionProfiles(index.fetch)
    profiles.learn("acme", "wiki", "thorough")
    assert await profiles.get("acme", ["wiki"]) == {"wiki": "thorough"}
    assert await profiles.get("other", ["wiki"]) == {"wiki": ""}


async def test_an_index_that_is_away_is_asked_again() -> None:
    index = Index()
    index.is_away = True
    profiles = CollectionProfiles(index.fetch)
    assert await profiles.get("", ["handbook"]) == {"handbook": ""}
    index.is_away = False
    assert await profiles.get("", ["handbook"]) == {"handbook": "fast"}


def test_a_profile_that_no_gateway_knows_any_more_is_none() -> None:
    body = schemas.QueryRequest(query="Why?", collections=["wiki"])
    kept, _ = Profiles().apply(body, "default", {"wiki": "gone"})
    assert kept == body
    changed, _ = Profiles().apply(body, "default", {"wiki": "fast"})
    assert (changed.top_k, changed.rerank) == (5, False)
