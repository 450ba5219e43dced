"""What `GetInfo` says of a server outside of the mesh."""

from __future__ import annotations

import asyncio

from raglan.errors import Unavailable
from raglan.rpc import dependency
from raglan.rpc.dependency import Dependency


async def test_one_that_answers_is_reachable() -> None:
    async def look() -> None:
        await asyncio.sleep(0)

    found = await Dependency("redis", look).state()
    assert (found.name, found.reachable, found.problem) == ("redis", True, "")
    assert found.seconds > 0


async def test_the_sentence_of_one_that_is_away_is_passed_on() -> None:
    async def look() -> None:
        raise Unavailable("Qdrant refuses the key; check RAGLAN_RETRIEVER_QDRANT_API_KEY.")

    found = await Dependency("qdrant", look).state()
    assert not found.reachable
    assert found.problem == "Qdrant refuses the key; check RAGLAN_RETRIEVER_QDRANT_API_KEY."


async def test_an_error_of_another_kind_is_named_without_its_text() -> None:
    async def look() -> None:
        raise KeyError("secret")

    found = await Dependency("postgresql", look).state()
    assert found.problem == "It failed: KeyError."


async def test_callers_of_one_that_hangs_share_one_look(monkeypatch) -> None:
    monkeypatch.setattr(dependency, "_LOOK_S", 0.05)
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        await asyncio.Event().wait()

    hanging = Dependency("postgresql", look)
    found = [await hanging.state(), *await asyncio.gather(hanging.state(), hanging.state())]
    assert [each.problem for each in found] == ["No answer within 0.05 s."] * 3
    assert looks == 1
    await hanging.close()
