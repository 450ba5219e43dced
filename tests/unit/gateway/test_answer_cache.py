"""Which answers one gateway keeps for the time without a retriever, and which it gives again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raglan.errors import NotFound, Unavailable
from raglan.v1 import retriever_pb2
from raglan_gateway.api.schemas import Degraded, SearchReply
from raglan_gateway.query import Query
from raglan_gateway.shared.answer_cache import ANSWER_BYTES, LOCAL_BYTES, AnswerCache, Place

HYBRID = retriever_pb2.SEARCH_MODE_HYBRID
DEGRADED = Degraded(stage="rerank", reason="The reranker cannot be reached.", fallback="fused")
BASE = Query(text="a question", collections=("c",), top_k=10, mode=HYBRID, rerank=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def question(text: str = "a question", collections: Sequence[str] = ("c",)) -> Query:
    return dataclasses.replace(BASE, text=text, collections=tuple(collections))


def reply(word: str = "", *, size: int = 0, degraded: bool = False) -> SearchReply:
    fell_back = [DEGRADED] if degraded else []
    return SearchReply(
        passages=[], degraded=fell_back, timings_ms={}, trace_id=word + "x" * (size - len(word))
    )


def place(cache: AnswerCache, query: Query = BASE) -> Place:
    return cache.place(query, generate=True)


async def given_again(cache: AnswerCache, query: Query = BASE) -> str | None:
    kept = await cache.get(place(cache, query))
    return json.loads(kept.body)["trace_id"] if kept else None


async def test_an_answer_is_given_again_with_its_age() -> None:
    clock = Clock()
    cache = AnswerCache(600, clock=clock)
    original = reply("first")
    cache.put(place(cache), original)
    clock.now += 90
    kept = await cache.get(place(cache))
    assert kept is not None
    assert SearchReply.model_validate_json(kept.body) == original
    assert kept.age_s == pytest.approx(90)


async def test_an_answer_that_is_too_old_is_not_given_again() -> None:
    clock = Clock()
    cache = AnswerCache(600, clock=clock)
    cache.put(place(cache), reply("first"))
    clock.now += 601
    assert await given_again(cache) is None


async def test_zero_seconds_keep_nothing() -> None:
    cache = AnswerCache(0, clock=Clock())
    cache.put(place(cache), reply("first"))
    assert await given_again(cache) is None
    assert cache.bytes_held == 0


async def test_a_degraded_answer_is_not_kept() -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(place(cache), reply("first", degraded=True))
    assert await given_again(cache) is None


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(place(cache), reply(size=ANSWER_BYTES))
    assert await given_again(cache) is None


async def test_the_answers_take_no_more_than_their_bytes() -> None:
    cache = AnswerCache(600, clock=Clock())
    for number in range(2_000):
        cache.put(place(cache, question(str(number))), reply(str(number), size=40_000))
        assert cache.bytes_held <= LOCAL_BYTES
    assert cache.bytes_held > 0.9 * LOCAL_BYTES
    assert (await given_again(cache, question("1999")) or "").startswith("1999")
    assert await given_again(cache, question("0")) is None


EXISTS = retriever_pb2.Filter(condition=retriever_pb2.Condition(field="year", exists=True))
OTHERS = [
    question("another question"),
    question(collections=("d",)),
    question(collections=("c", "d")),
    dataclasses.replace(BASE, top_k=3),
    dataclasses.replace(BASE, mode=retriever_pb2.SEARCH_MODE_LEXICAL),
    dataclasses.replace(BASE, rerank=False),
    dataclasses.replace(BASE, max_tokens=100),
    dataclasses.replace(BASE, filter=EXISTS),
]


@pytest.mark.parametrize("other", OTHERS, ids=range(len(OTHERS)))
async def test_whatever_decides_the_reply_makes_it_another_one(other: Query) -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(place(cache), reply("first"))
    assert await given_again(cache, other) is None
    assert await given_again(cache) is not None


async def test_a_search_is_not_answered_with_a_querys_reply() -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(cache.place(BASE, generate=True), reply("first"))
    assert await cache.get(cache.place(BASE, generate=False)) is None


async def test_a_deletion_takes_every_answer_of_its_collection_and_no_other() -> None:
    cache = AnswerCache(600, clock=Clock())
    for collections in (("c",), ("c", "d"), ("d",)):
        query = question(collections=collections)
        cache.put(place(cache, query), reply("-".join(collections)))
    await cache.invalidate("c")
    assert await given_again(cache, question(collections=("c",))) is None
    assert await given_again(cache, question(collections=("c", "d"))) is None
    assert await given_again(cache, question(collections=("d",))) == "d"


async def test_an_answer_that_was_in_the_making_during_a_deletion_is_not_kept() -> None:
    cache = AnswerCache(600, clock=Clock())
    before = place(cache)
    await cache.invalidate("c")
    cache.put(before, reply("holds what was deleted"))
    assert await given_again(cache) is None
    cache.put(place(cache), reply("clean"))
    assert await given_again(cache) == "clean"


async def test_a_deletion_that_fails_half_way_counts_as_one() -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(place(cache), reply("first"))
    with pytest.raises(Unavailable):
        async with cache.deleting("c"):
            raise Unavailable("The retriever cannot be reached.")
    assert await given_again(cache) is None


async def test_deleting_what_does_not_exist_takes_nothing() -> None:
    cache = AnswerCache(600, clock=Clock())
    cache.put(place(cache), reply("first"))
    with pytest.raises(NotFound):
        async with cache.deleting("c"):
            raise NotFound("There is no such document.")
    assert await given_again(cache) == "first"


COLLECTIONS = st.lists(st.integers(0, 6_000), max_size=40)


@settings(max_examples=40)
@given(before=COLLECTIONS, after=COLLECTIONS, flood=st.sampled_from([0, 5_000]))
async def test_however_many_collections_are_deleted_from_none_comes_back(
    before: list[int], after: list[int], flood: int
) -> None:
    cache = AnswerCache(600, clock=Clock())
    for number in before:
        query = question(collections=(str(number),))
        cache.put(place(cache, query), reply("old"))
    for number in [*after, *range(flood)]:
        await cache.invalidate(str(number))
    for number in set(after):
        assert await given_again(cache, question(collections=(str(number),))) is None
    if not flood:
        for number in set(before) - set(after):
            assert await given_again(cache, question(collections=(str(number),))) == "old"
