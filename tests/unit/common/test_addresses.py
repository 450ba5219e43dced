"""Where replicas are found when name servers answer, contradict or keep silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from name_server import NameServer, name_server
from raglan.rpc import addresses
from raglan.rpc.addresses import Addresses, Resolver

TWO = Addresses.parse("embedder.test:7101,other.test:7102")


@pytest.fixture
async def dns() -> AsyncIterator[NameServer]:
    async with name_server() as server:
        yield server


@pytest.fixture
async def resolver(dns: NameServer) -> AsyncIterator[Resolver]:
    resolver = Resolver([dns.address])
    yield resolver
    await resolver.close()


async def test_a_name_stands_for_all_of_its_addresses(dns: NameServer, resolver: Resolver) -> None:
    dns.names = {"embedder.test": ["10.0.0.1", "10.0.0.2"], "other.test": ["10.0.0.3"]}
    found, problems = await resolver.resolve(TWO)
    assert found == {"10.0.0.1:7101", "10.0.0.2:7101", "10.0.0.3:7102"}
    assert not problems


async def test_a_name_that_is_gone_keeps_its_answer_and_holds_up_no_other(
    dns: NameServer, resolver: Resolver
) -> None:
    dns.names = {"embedder.test": ["10.0.0.1"], "other.test": ["10.0.0.3"]}
    await resolver.resolve(TWO)
    dns.names = {"embedder.test": ["10.0.0.2"]}
    found, problems = await resolver.resolve(TWO)
    assert found == {"10.0.0.2:7101", "10.0.0.3:7102"}
    assert [problem.partition(":")[0] for problem in problems] == ["other.test"]


async def test_a_name_that_was_never_known_holds_up_no_other(
    dns: NameServer, resolver: Resolver
) -> None:
    dns.names = {"embedder.test": ["10.0.0.1"]}
    found, problems = await resolver.resolve(TWO)
    assert found == {"10.0.0.1:7101"}
    assert len(problems) == 1


async def test_a_name_that_left_the_list_is_forgotten(dns: NameServer, resolver: Resolver) -> None:
    dns.names = {"embedder.test": ["10.0.0.1"], "other.test": ["10.0.0.3"]}
    await resolver.resolve(TWO)
    found, _ = await resolver.resolve(Addresses.parse("other.test:7102"))
    assert found == {"10.0.0.3:7102"}


async def test_silent_name_servers_hold_no_threads(
    dns: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More look-ups at a time than the default executor has threads, none of which ends."""
    monkeypatch.setattr(addresses, "_ANSWER_S", 60)
    monkeypatch.setattr(addresses, "_RESOLVE_S", 60)
    dns.silent = {"embedder.test", "other.test"}
    resolvers = [Resolver([dns.address]) for _ in range(40)]
    looking = [asyncio.create_task(each.resolve(TWO)) for each in resolvers]
    try:
        async with asyncio.timeout(30):
            while len(dns.asked) < len(resolvers):
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "ran") == "ran"
        assert not any(task.done() for task in looking)
    finally:
        for task in looking:
            task.cancel()
        await asyncio.wait(looking)
        for each in resolvers:
            await each.close()


async def test_silence_is_an_answer_after_a_while(
    dns: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_RESOLVE_S", 0.1)
    dns.names, dns.silent = {"embedder.test": ["10.0.0.1"]}, {"other.test"}
    while not (resolved := await resolver.resolve(TWO))[0]:
        pass
    assert resolved[0] == {"10.0.0.1:7101"}
    assert "other.test was not resolved within 0.1 s" in resolved[1]


@pytest.mark.parametrize("name", ["a..test", "x" * 70 + ".test", "ü" * 70 + ".test"])
async def test_what_is_no_name_holds_up_no_other(
    dns: NameServer, resolver: Resolver, name: str
) -> None:
    dns.names = {"embedder.test": ["10.0.0.1"]}
    found, problems = await resolver.resolve(Addresses.parse(f"embedder.test:7101,{name}:1"))
    assert found == {"10.0.0.1:7101"}
    assert len(problems) == 1
