"""Which answers one gateway keeps for the time without a retriever, and which it gives again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raglan.errors import NotFound, NotSupported, Unavailable
from raglan.v1 import ingester_pb2, retriever_pb2
from raglan_gateway.api import stale_answers
from raglan_gateway.api.schemas import Degraded, SearchReply
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.shared.answer_cache import ANSWER_BYTES, LOCAL_BYTES, AnswerCache

HYBRID = retriever_pb2.SEARCH_MODE_HYBRID
DEGRADED = Degraded(stage="rerank", reason="The reranker cannot be reached.", fallback="fused")
BASE = Query(text="a question", collections=("c",), top_k=10, mode=HYBRID, rerank=True)
C1 = {"c": 1}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Ingester:
    """Answers `GetRevisions`, or fails with `error`."""

    def __init__(self) -> None:
        self.reply = ingester_pb2.GetRevisionsResponse()
        self.error: Exception | None = None

    async def __call__(self, collections: Sequence[str]) -> ingester_pb2.GetRevisionsResponse:
        if self.error is not None:
            raise self.error
        return self.reply


def opened(keep_s: float = 600, clock: Clock | None = None) -> AnswerCache:
    return AnswerCache(keep_s, Ingester(), clock=clock or Clock())


def question(text: str = "a question", collections: Sequence[str] = ("c",)) -> Query:
    return dataclasses.replace(BASE, text=text, collections=tuple(collections))


def reply(word: str = "", *, size: int = 0, degraded: bool = False) -> SearchReply:
    fell_back = [DEGRADED] if degraded else []
    return SearchReply(
        passages=[], degraded=fell_back, timings_ms={}, trace_id=word + "x" * (size - len(word))
    )


def keep(
    cache: AnswerCache,
    given: SearchReply,
    query: Query = BASE,
    revisions: Mapping[str, int] | None = None,
) -> None:
    run = QueryState(query, None)  # type: ignore[arg-type]
    told = dict.fromkeys(query.collections, 1) if revisions is None else revisions
    run.revisions = dict(told)
    stale_answers.keep(cache, run, given)


async def found(cache: AnswerCache, query: Query = BASE) -> str | None:
    stale = await cache.get(query, "SearchReply")
    return json.loads(stale.body)["trace_id"] if stale else None


async def deleted(revision: int) -> ingester_pb2.DeleteDocumentResponse:
    return ingester_pb2.DeleteDocumentResponse(revision=revision)


async def failed(error: Exception) -> ingester_pb2.DeleteDocumentResponse:
    raise error


async def test_an_answer_is_given_again_with_its_age() -> None:
    clock = Clock()
    cache = opened(clock=clock)
    original = reply("first")
    keep(cache, original)
    clock.now += 90
    stale = await cache.get(BASE, "SearchReply")
    assert stale is not None
    assert SearchReply.model_validate_json(stale.body) == original
    assert stale.age_s == pytest.approx(90)


async def test_an_answer_that_is_too_old_is_not_given_again() -> None:
    clock = Clock()
    cache = opened(clock=clock)
    keep(cache, reply("first"))
    clock.now += 601
    assert await found(cache) is None


async def test_zero_seconds_keep_nothing() -> None:
    cache = opened(0)
    keep(cache, reply("first"))
    assert await found(cache) is None
    assert cache.bytes_held == 0


async def test_a_degraded_answer_is_not_kept() -> None:
    cache = opened()
    keep(cache, reply("first", degraded=True))
    assert await found(cache) is None


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    cache = opened()
    keep(cache, reply(size=ANSWER_BYTES))
    assert await found(cache) is None


async def test_the_answers_take_no_more_than_their_bytes() -> None:
    cache = opened()
    for number in range(2_000):
        keep(cache, reply(str(number), size=40_000), question(str(number)))
        assert cache.bytes_held <= LOCAL_BYTES
    assert cache.bytes_held > 0.9 * LOCAL_BYTES
    assert (await found(cache, question("1999")) or "").startswith("1999")
    assert await found(cache, question("0")) is None


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
    cache = opened()
    cache.learn({"d": 1})
    keep(cache, reply("first"))
    assert await found(cache, other) is None
    assert await found(cache) is not None


async def test_a_search_is_not_answered_with_a_querys_reply() -> None:
    cache = opened()
    cache.learn(C1)
    cache.put(BASE, "QueryReply", C1, b"{}")
    assert await cache.get(BASE, "SearchReply") is None
    assert await cache.get(BASE, "QueryReply") is not None


@pytest.mark.parametrize("revisions", [{}, {"c": 0}, {"c": 1}, {"c": 1, "d": 0}])
async def test_without_the_revision_of_each_collection_nothing_is_kept(
    revisions: dict[str, int],
) -> None:
    """A retriever that is older than revisions tells none, or says 0."""
    cache = opened()
    keep(cache, reply("first"), question(collections=("c", "d")), revisions)
    assert cache.bytes_held == 0


async def test_an_answer_at_an_older_revision_is_not_given() -> None:
    cache = opened()
    keep(cache, reply("first"))
    cache.learn({"c": 2})
    assert await found(cache) is None


async def test_a_late_reply_of_an_earlier_search_changes_nothing() -> None:
    cache = opened()
    keep(cache, reply("second"), revisions={"c": 2})
    keep(cache, reply("first"))
    assert await found(cache) == "second"


async def test_a_degraded_reply_tells_the_revision_all_the_same() -> None:
    cache = opened()
    keep(cache, reply("first"))
    keep(cache, reply("second", degraded=True), revisions={"c": 2})
    assert await found(cache) is None


async def test_a_change_takes_every_answer_of_its_collection_and_no_other() -> None:
    cache = opened()
    for collections in (("c",), ("c", "d"), ("d",)):
        keep(cache, reply("-".join(collections)), question(collections=collections))
    await cache.deletion("c", deleted(2))
    assert await found(cache, question(collections=("c",))) is None
    assert await found(cache, question(collections=("c", "d"))) is None
    assert await found(cache, question(collections=("d",))) == "d"


async def test_an_answer_in_the_making_during_a_deletion_is_not_given() -> None:
    cache = opened()
    cache.learn(C1)
    await cache.deletion("c", deleted(2))
    keep(cache, reply("holds what was deleted"))
    assert await found(cache) is None
    keep(cache, reply("clean"), revisions={"c": 2})
    assert await found(cache) == "clean"


async def test_a_deletion_that_fails_half_way_counts_as_one() -> None:
    cache = opened()
    keep(cache, reply("first"))
    with pytest.raises(Unavailable):
        await cache.deletion("c", failed(Unavailable("The retriever cannot be reached.")))
    assert await found(cache) is None


async def test_a_deletion_by_an_older_ingester_counts_too() -> None:
    cache = opened()
    keep(cache, reply("first"))
    await cache.deletion("c", deleted(0))
    assert await found(cache) is None


async def test_a_search_during_a_deletion_that_fails_does_not_hide_it() -> None:
    cache = opened()

    async def deletion() -> ingester_pb2.DeleteDocumentResponse:
        keep(cache, reply("found before it was deleted"), revisions={"c": 7})
        raise Unavailable("The retriever cannot be reached.")

    with pytest.raises(Unavailable):
        await cache.deletion("c", deletion())
    assert await found(cache) is None


async def test_deleting_what_does_not_exist_takes_nothing() -> None:
    cache = opened()
    keep(cache, reply("first"))
    with pytest.raises(NotFound):
        await cache.deletion("c", failed(NotFound("There is no such document.")))
    assert await found(cache) == "first"


async def test_the_ingester_knows_a_newer_revision() -> None:
    ingester = Ingester()
    cache = AnswerCache(600, ingester, clock=Clock())
    keep(cache, reply("first"))
    ingester.reply.revisions["c"] = 1
    assert await found(cache) == "first"
    ingester.reply.revisions["c"] = 2
    assert await found(cache) is None


async def test_a_deletion_that_the_index_has_not_carried_out_is_honoured() -> None:
    ingester = Ingester()
    cache = AnswerCache(600, ingester, clock=Clock())
    keep(cache, reply("first"), question(collections=("c", "d")))
    ingester.reply.unfinished.append("d")
    assert await found(cache, question(collections=("c", "d"))) is None
    del ingester.reply.unfinished[:]
    assert await found(cache, question(collections=("c", "d"))) == "first"


@pytest.mark.parametrize("error", [Unavailable("Away."), NotSupported("GetRevisions")])
async def test_without_an_ingester_that_knows_the_last_known_revision_serves(
    error: Exception,
) -> None:
    ingester = Ingester()
    ingester.error = error
    cache = AnswerCache(600, ingester, clock=Clock())
    keep(cache, reply("first"))
    assert await found(cache) == "first"


COLLECTIONS = st.lists(st.integers(0, 6_000), max_size=40)


@settings(max_examples=40)
@given(before=COLLECTIONS, after=COLLECTIONS, flood=st.sampled_from([0, 5_000]))
async def test_however_many_collections_are_deleted_from_none_comes_back(
    before: list[int], after: list[int], flood: int
) -> None:
    cache = opened()
    for number in before:
        keep(cache, reply("old"), question(collections=(str(number),)))
    for number in [*after, *range(flood)]:
        await cache.deletion(str(number), deleted(2))
    for number in set(after):
        assert await found(cache, question(collections=(str(number),))) is None
    if not flood:
        for number in set(before) - set(after):
            assert await found(cache, question(collections=(str(number),))) == "old"
