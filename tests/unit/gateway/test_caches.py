"""Caches of queries over stages that behave as told: hits, freshness, sharing, and what is kept."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

import pytest
from cached_gateway import LAYERS, MODEL, QUERY, SERVICES, Gateway, Index, running, texts
from raglan.deadline import Deadline
from raglan.errors import NotFound, RaglanError, Unavailable
from raglan.resilience.limiter import Priority
from raglan.v1 import common_pb2, generator_pb2, retriever_pb2
from raglan_gateway import caller
from raglan_gateway.caches import control, keys
from raglan_gateway.caches.control import CacheControl
from raglan_gateway.caches.entry import Entry, Layer, pack, unpack
from raglan_gateway.caches.lookup import is_repeatable
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.pipeline import Answered, Cited, Delta, Thinking
from raglan_gateway.preferences import Boost
from raglan_gateway.query import Query
from raglan_gateway.strategies.strategy import SecondTry, Strategy


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
async def gateway(index: Index) -> AsyncIterator[Gateway]:
    async with running(index, SimilarQuestions(0, 1, 0)) as made:
        yield made


async def test_a_repeated_question_runs_no_stage_and_has_the_same_events(
    gateway: Gateway, index: Index
) -> None:
    first = await gateway.events()
    ran = list(index.calls)
    again = await gateway.events()
    assert index.calls == ran == ["embed", "search", "rerank", "generate"]
    assert texts(again) == texts(first) == "It is 1 of how often is the pump maintained 2 [1]"
    kinds = [type(event) for event in first if not isinstance(event, Delta)]
    assert [type(event) for event in again if not isinstance(event, Delta)] == kinds
    assert Thinking("Hm.") in again
    cited = [event for event in again if isinstance(event, Cited)]
    assert cited[0].passage.chunk_id == "p2"
    one, other = (events[-1] for events in (first, again))
    assert isinstance(one, Answered)
    assert isinstance(other, Answered)
    assert other.run.finished == one.run.finished
    assert other.run.passages == one.run.passages
    assert other.run.claims == one.run.claims
    assert set(other.run.cached) == {Layer.ANSWER}
    assert gateway.counted.hits == [Layer.ANSWER]


async def test_a_changed_collection_is_searched_anew(gateway: Gateway, index: Index) -> None:
    await gateway.answer()
    index.revision = 2
    run = await gateway.answer()
    assert run.answer.startswith("It is 2 of")
    assert set(run.cached) == {Layer.EMBEDDING}
    assert index.calls.count("embed") == 1
    assert index.calls.count("search") == 2


async def test_another_answer_over_the_same_passages_takes_them_from_the_cache(
    gateway: Gateway, index: Index
) -> None:
    await gateway.answer()
    run = await gateway.answer(dataclasses.replace(QUERY, max_tokens=5))
    assert index.calls == ["embed", "search", "rerank", "generate", "generate"]
    assert set(run.cached) == {Layer.EVIDENCE}
    found = await gateway.pipeline.search(QUERY, Deadline.after(20))
    assert [passage.chunk_id for passage in found.passages] == ["p2", "p0", "p1"]
    assert set(found.cached) == {Layer.EVIDENCE}


async def test_a_replaced_model_has_its_own_answers(gateway: Gateway, index: Index) -> None:
    await gateway.answer()
    gateway.models.known["generator"] = common_pb2.ServiceInfo(
        model=common_pb2.ModelIdentity(id="another")
    )
    run = await gateway.answer()
    assert set(run.cached) == {Layer.EVIDENCE}


@pytest.mark.parametrize("stage", ["embed", "rerank"])
async def test_degraded_results_are_not_kept(gateway: Gateway, index: Index, stage: str) -> None:
    setattr(index, f"{stage}_error", Unavailable("Away."))
    assert (await gateway.answer()).degraded
    setattr(index, f"{stage}_error", None)
    run = await gateway.answer()
    assert not run.degraded
    assert not set(run.cached) & {Layer.EVIDENCE, Layer.ANSWER}


@pytest.mark.parametrize("error", [Unavailable("Away."), NotFound("No such collection.")])
async def test_without_known_revisions_nothing_cached_is_given(
    gateway: Gateway, index: Index, error: RaglanError
) -> None:
    await gateway.answer()
    index.revisions_error = error
    run = await gateway.answer()
    assert set(run.cached) == {Layer.EMBEDDING}


async def test_no_cache_runs_anew_and_no_store_keeps_nothing(
    gateway: Gateway, index: Index
) -> None:
    no_store = dataclasses.replace(QUERY, cache=CacheControl(stores=False))
    await gateway.answer(no_store)
    assert not (await gateway.answer()).cached
    no_cache = dataclasses.replace(QUERY, cache=CacheControl(reads=False))
    assert not (await gateway.answer(no_cache)).cached
    assert (await gateway.answer()).cached
    await asyncio.sleep(0.01)
    young = dataclasses.replace(QUERY, cache=CacheControl(max_age_s=0.001))
    assert not (await gateway.answer(young)).cached


async def test_tenants_share_nothing(gateway: Gateway, index: Index) -> None:
    await gateway.answer(dataclasses.replace(QUERY, tenant="a"))
    run = await gateway.answer(dataclasses.replace(QUERY, tenant="b"))
    assert not run.cached
    assert index.calls.count("embed") == 2


async def test_identical_queries_at_the_same_time_share_one_run(
    gateway: Gateway, index: Index
) -> None:
    index.going_on.clear()
    asking = [asyncio.create_task(gateway.events()) for _ in range(20)]
    while index.calls.count("generate") == 0:
        await asyncio.sleep(0)
    index.going_on.set()
    replies = await asyncio.gather(*asking)
    assert index.calls.count("generate") == 1
    assert {texts(events) for events in replies} == {texts(replies[0])}
    assert gateway.counted.joins == 19
    assert index.spent == [7]


@pytest.mark.parametrize("leaver", [0, 1])
async def test_who_leaves_takes_nobody_along(gateway: Gateway, index: Index, leaver: int) -> None:
    index.going_on.clear()
    asking = [asyncio.create_task(gateway.events()) for _ in range(3)]
    while index.calls.count("generate") == 0:
        await asyncio.sleep(0)
    asking[leaver].cancel()
    await asyncio.wait((asking[leaver],))
    index.going_on.set()
    stayed = [task for number, task in enumerate(asking) if number != leaver]
    replies = await asyncio.gather(*stayed)
    assert all(texts(events).startswith("It is") for events in replies)
    assert index.calls.count("generate") == 1


async def test_a_run_that_everybody_left_ends(gateway: Gateway, index: Index) -> None:
    index.going_on.clear()
    asking = [asyncio.create_task(gateway.events()) for _ in range(3)]
    while index.calls.count("generate") == 0:
        await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert index.closed == 1
    index.going_on.set()
    assert not set((await gateway.answer()).cached) & {Layer.ANSWER}


async def test_who_asks_after_a_change_joins_no_run_from_before_it(
    gateway: Gateway, index: Index
) -> None:
    index.going_on.clear()
    before = asyncio.create_task(gateway.events())
    while index.calls.count("generate") == 0:
        await asyncio.sleep(0)
    index.revision = 2
    after = asyncio.create_task(gateway.events())
    while index.calls.count("generate") < 2:
        await asyncio.sleep(0)
    index.going_on.set()
    assert "2 of" in texts(await after)
    assert "1 of" in texts(await before)


async def test_a_stream_that_is_closed_early_is_closed_behind(
    gateway: Gateway, index: Index
) -> None:
    async with aclosing(gateway.pipeline.answer(QUERY, Deadline.after(20))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert index.closed == 1


async def test_many_requests_ask_for_revisions_by_few_calls(gateway: Gateway, index: Index) -> None:
    await gateway.answer()
    index.asked.clear()
    await asyncio.gather(*(gateway.answer() for _ in range(100)))
    assert 1 <= len(index.asked) <= 3


async def test_a_request_never_uses_revisions_asked_for_before_it() -> None:
    revision, release = 1, asyncio.Event()

    async def fetch(collections: Sequence[str]) -> Mapping[str, int]:
        seen = revision
        await release.wait()
        return dict.fromkeys(collections, seen)

    revisions = CurrentRevisions(fetch)
    early = asyncio.create_task(revisions.get("", ["c"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    revision = 2
    late = asyncio.create_task(revisions.get("", ["c"]))
    await asyncio.sleep(0)
    release.set()
    assert await early == {"c": 1}
    assert await late == {"c": 2}
    await revisions.close()


async def test_a_limited_key_asks_for_revisions_by_itself() -> None:
    """Its call may name its own collections only, and would be refused with those of others."""
    asked: list[tuple[tuple[str, ...] | None, Sequence[str]]] = []

    async def fetch(collections: Sequence[str]) -> Mapping[str, int]:
        asked.append((caller.current().collections, collections))
        return dict.fromkeys(collections, 1)

    async def get(who: caller.Caller, name: str) -> None:
        caller.use(who)
        assert await revisions.get("", [name]) == {name: 1}

    revisions = CurrentRevisions(fetch)
    limited = caller.Caller("k", collections=("a",))
    await asyncio.gather(get(limited, "a"), get(caller.ANONYMOUS, "b"), get(limited, "a"))
    await revisions.close()
    assert sorted(asked, key=str) == [(("a",), ["a"]), (None, ["b"])]


OTHER_VALUES = {
    "text": "another",
    "collections": ("c", "d"),
    "top_k": 4,
    "mode": retriever_pb2.SEARCH_MODE_DENSE,
    "rerank": False,
    "further": ("token_vectors",),
    "filter": retriever_pb2.Filter(condition=retriever_pb2.Condition(field="a", exists=True)),
    "as_of_ms": 1_000,
    "min_score": 0.5,
    "boosts": (Boost("team", 0.2, '"search"'),),
    "diversity": 0.3,
    "expand_tokens": 500,
    "expand_neighbours": True,
    "max_tokens": 9,
    "priority": Priority.BATCH,
    "stream": True,
    "tenant": "t",
    "history": (generator_pb2.Turn(role=generator_pb2.ROLE_USER, text="before"),),
    "sampling": generator_pb2.Sampling(seed=1),
    "json_schema": "{}",
    "standalone": "the question on its own",
    "instructions": "Answer in verse.",
    "generators": ("large",),
    "small_talk": "Hello!",
    "missing": (("history", "The database is away."),),
    "access": ("legal",),
    "strategy": Strategy.REWRITE,
    "query_count": 4,
    "rewriter": "small",
    "second_try": SecondTry.LEXICAL,
    "second_try_below": 0.5,
    "cache": CacheControl(reads=False),
}


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Query)])
def test_every_field_of_a_query_is_in_the_key_or_named_as_left_out(name: str) -> None:
    """A new field has no value here: add one, and decide whether it says what a reply holds."""
    told = {"c": 1, "d": 1}
    assert OTHER_VALUES[name] != getattr(QUERY, name)
    other = dataclasses.replace(QUERY, **{name: OTHER_VALUES[name]})
    same_answer = keys.answer(QUERY, told, {}, "") == keys.answer(other, told, {}, "")
    same_evidence = keys.evidence(QUERY, told, {}, "") == keys.evidence(other, told, {}, "")
    assert same_answer == (name in keys.OF_THE_REQUEST)
    assert same_evidence == (name in keys.OF_THE_ANSWER)


@pytest.mark.parametrize("service", SERVICES)
def test_every_model_is_in_the_key(service: str) -> None:
    served = {service: common_pb2.ServiceInfo(model=MODEL)}
    assert keys.answer(QUERY, {"c": 1}, served, "") != keys.answer(QUERY, {"c": 1}, {}, "")
    assert keys.answer(QUERY, {"c": 1}, {}, "") != keys.answer(QUERY, {"c": 2}, {}, "")
    assert keys.answer(QUERY, {"c": 1}, {}, "a") != keys.answer(QUERY, {"c": 1}, {}, "b")


def test_a_value_without_a_canonical_form_makes_no_key() -> None:
    with pytest.raises(TypeError, match="canonical"):
        keys.answer(dataclasses.replace(QUERY, json_schema={"a": 1}), {"c": 1}, {}, "")  # type: ignore[arg-type]


def test_damaged_values_are_none() -> None:
    packed = pack(Entry(b"some bytes", 5.0, 0.25))
    assert unpack(packed) == Entry(b"some bytes", 5.0, 0.25)
    for at in range(len(packed)):
        assert unpack(packed[:at]) is None
        assert unpack(packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]) is None


async def test_the_memory_of_the_cache_is_bounded() -> None:
    store = CacheStore(dict.fromkeys(LAYERS, 600.0), 100_000)
    for number in range(1_000):
        store.put((Layer.ANSWER, number.to_bytes(16, "little")), b"x" * 1_000, 1)
    assert 90_000 < store.bytes_held <= 100_000
    store.put((Layer.ANSWER, b"large"), b"x" * 90_000, 1)
    assert store.get_local((Layer.ANSWER, b"large")) is None


async def test_a_value_is_not_given_after_its_time_and_a_layer_can_be_off() -> None:
    now = 100.0
    lifetimes = {Layer.EMBEDDING: 60.0, Layer.EVIDENCE: 30.0, Layer.ANSWER: 0.0}
    store = CacheStore(lifetimes, 100_000, clock=lambda: now)
    for layer in LAYERS:
        store.put((layer, b"k"), b"value", 1)
    assert [store.get_local((layer, b"k")) is not None for layer in LAYERS] == [True, True, False]
    now += 31
    assert [store.get_local((layer, b"k")) is not None for layer in LAYERS] == [True, False, False]


@pytest.mark.parametrize(
    ("sampling", "repeatable"),
    [
        (None, True),
        (generator_pb2.Sampling(temperature=0), True),
        (generator_pb2.Sampling(temperature=0.7), False),
        (generator_pb2.Sampling(top_p=0.5), False),
        (generator_pb2.Sampling(temperature=0.7, seed=3), True),
        (generator_pb2.Sampling(stop=["."]), True),
    ],
)
def test_only_sampling_without_a_seed_asks_for_another_answer(
    sampling: generator_pb2.Sampling | None, repeatable: bool
) -> None:
    assert is_repeatable(dataclasses.replace(QUERY, sampling=sampling)) is repeatable


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("", CacheControl()),
        ("no-cache", CacheControl(reads=False)),
        ("No-Store, max-age=5", CacheControl(stores=False, max_age_s=5)),
        ("max-age=0", CacheControl(reads=False, max_age_s=0)),
        ("max-age=-1, max-age=x, foo", CacheControl()),
        ("max-age=" + "9" * 400, CacheControl()),
    ],
)
def test_directives_of_a_request(header: str, parsed: CacheControl) -> None:
    assert control.parse(header) == parsed
