"""The semantic cache: questions that ask the same share an answer, and no others do."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_gateway import QUERY, Gateway, Index, running, texts
from raglan import tenancy
from raglan.v1 import generator_pb2, retriever_pb2
from raglan_gateway.api import replies
from raglan_gateway.caches.control import CacheControl
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.guards import LONGEST, Features, same_question
from raglan_gateway.caches.lookup import Lookup
from raglan_gateway.caches.similar import Asked, Scope, SimilarQuestions
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.deletions import Deletions
from raglan_gateway.query import Query
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.strategies.strategy import SecondTry, Strategy

PAIRS = [
    line.split("\t")
    for line in (Path(__file__).parents[3] / "bench/question_pairs.tsv").read_text().splitlines()
]
ASKED = dataclasses.replace(QUERY, text="How often is the pump maintained?")
REWORDED = dataclasses.replace(QUERY, text="Tell me how frequently the pump is maintained")
SCOPE = Scope(frozenset({"c"}), b"k")


@pytest.fixture
def similar() -> SimilarQuestions:
    return SimilarQuestions(0.9, 1_000_000, 600)


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
async def gateway(index: Index, similar: SimilarQuestions) -> AsyncIterator[Gateway]:
    async with running(index, similar) as made:
        yield made


def features(question: str) -> Features:
    found = Features.of(question)
    assert found is not None, question
    return found


def asked(question: str) -> Asked:
    return Asked(question, features(question), question.encode())


def test_the_guards_tell_all_different_questions_apart() -> None:
    """Vectors are left out: whatever model is served, its cosines decide nothing alone."""
    wrong = []
    for kind, one, other in PAIRS:
        both = Features.of(one), Features.of(other)
        if kind != "same" and None not in both and same_question(*both):  # type: ignore[arg-type]
            wrong.append((kind, one, other))
    assert len(PAIRS) >= 300
    assert wrong == []


def test_the_guards_let_most_of_the_reworded_questions_pass() -> None:
    same = [(Features.of(one), Features.of(other)) for kind, one, other in PAIRS if kind == "same"]
    passed = sum(one is not None and other is not None and same_question(one, other)
                 for one, other in same)  # fmt: skip
    assert passed / len(same) >= 0.5


@pytest.mark.parametrize(
    "question",
    [
        "Wie oft wird die Pumpe gewartet?",
        "¿Cuál es la capital de Mongolia?",
        "Где находится Нормандия?",
        "pump maintenance",
        "ポンプはどのくらいの頻度で点検されますか",
        "",
        "Is the pump maintained? " * (LONGEST // 20),
    ],
)
def test_what_is_no_short_english_question_is_never_compared(question: str) -> None:
    assert Features.of(question) is None


async def test_a_reworded_question_gets_the_cached_answer(gateway: Gateway, index: Index) -> None:
    first = await gateway.events(ASKED)
    index.calls.clear()
    again = await gateway.events(REWORDED)
    assert index.calls == ["embed"]
    assert texts(again) == texts(first)
    run = again[-1].run  # type: ignore[union-attr]
    assert set(run.cached) == {Layer.SEMANTIC}
    assert index.spent == [7]
    reply = replies.query(run)
    assert reply.similar is not None
    assert reply.similar.question == ASKED.text
    assert reply.similar.similarity == pytest.approx(1)
    assert reply.standalone_question == REWORDED.text
    assert reply.timings_ms.keys() >= {"embed", "total"}
    assert gateway.counted.hits == [Layer.SEMANTIC]


async def test_the_vector_of_a_reworded_question_is_kept_and_its_answer_is_not(
    gateway: Gateway, index: Index
) -> None:
    await gateway.answer(ASKED)
    await gateway.answer(REWORDED)
    index.calls.clear()
    run = await gateway.answer(REWORDED)
    assert set(run.cached) == {Layer.SEMANTIC, Layer.EMBEDDING}
    assert index.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "another"},
        {"filter": retriever_pb2.Filter(condition=retriever_pb2.Condition(field="a"))},
        {"top_k": 4},
        {"max_tokens": 5},
        {"instructions": "Answer in verse."},
        {"generators": ("large",)},
        {"json_schema": "{}"},
        {"mode": retriever_pb2.SEARCH_MODE_LEXICAL},
        {"history": (generator_pb2.Turn(role=generator_pb2.ROLE_USER, text="before"),)},
        {"cache": CacheControl(reads=False)},
        {"cache": CacheControl(max_age_s=0)},
        {"sampling": generator_pb2.Sampling(temperature=1)},
        {"second_try": SecondTry.LEXICAL},
        {"text": "How often is the pump not maintained?"},
    ],
    ids=str,
)
async def test_another_request_gets_an_answer_of_its_own(
    gateway: Gateway, change: dict[str, Any]
) -> None:
    await gateway.answer(ASKED)
    run = await gateway.answer(dataclasses.replace(REWORDED, **change))
    assert Layer.SEMANTIC not in run.cached
    assert run.similar is None


def test_what_a_model_writes_for_a_question_serves_no_other(gateway: Gateway) -> None:
    def scope(query: Query) -> Scope | None:
        lookup = Lookup(gateway.models.known)
        lookup.plan_answer(query, {"c": 1}, "", keeps=lambda layer: True, finds_similar=True)
        return lookup.scope

    assert scope(ASKED) == scope(REWORDED) is not None
    assert scope(dataclasses.replace(ASKED, strategy=Strategy.REWRITE)) is None


async def test_what_is_not_to_be_stored_answers_no_other_question(gateway: Gateway) -> None:
    await gateway.answer(dataclasses.replace(ASKED, cache=CacheControl(stores=False)))
    assert not (await gateway.answer(REWORDED)).cached


async def test_a_changed_collection_is_searched_anew(gateway: Gateway, index: Index) -> None:
    await gateway.answer(ASKED)
    index.revision = 2
    assert (await gateway.answer(REWORDED)).answer.startswith("It is 2 of")


async def test_an_answer_that_was_evicted_is_made_anew(gateway: Gateway, index: Index) -> None:
    await gateway.answer(ASKED)
    gateway.store._local.clear()
    run = await gateway.answer(REWORDED)
    assert not run.cached
    assert run.similar is None


async def test_a_distant_vector_shares_no_answer(gateway: Gateway, index: Index) -> None:
    await gateway.answer(ASKED)
    index.vector = (0.0, 1.0)
    assert Layer.SEMANTIC not in (await gateway.answer(REWORDED)).cached


async def test_a_deletion_takes_the_questions_along(
    gateway: Gateway, similar: SimilarQuestions
) -> None:
    await gateway.answer(ASKED)
    with tenancy.serving("another"):
        similar.forget("c")
    assert similar.bytes_held > 0

    class NoAnswers(Archive):
        def __init__(self) -> None:
            pass

        async def note_change(self, collection: str, document_ids: Any = ()) -> str:
            return ""

        async def delete_changed(self, change_id: str, untouched: Any = ()) -> None:
            pass

    async def delete() -> Any:
        return retriever_pb2.DeleteResponse(revision=2)

    async def nothing(*_: Any) -> Any:
        return []

    answers = AnswerCache(0, nothing)
    await Deletions(answers, NoAnswers(), similar, nothing, nothing).run("c", delete, ["d"])
    assert similar.bytes_held == 0


def test_the_nearest_question_comes_first(similar: SimilarQuestions) -> None:
    for question, vector in (
        ("What is part 1?", (1.0, 0.3)),
        ("What's part 1", (1.0, 0.0)),
        ("What is part 2?", (1.0, 0.1)),
        ("Please say what part 1 is", (0.0, 1.0)),
    ):
        similar.add(SCOPE, asked(question), np.array(vector, np.float32))
    vector = np.array([7.0, 0.7], np.float32)
    found = similar.find(SCOPE, features("what part 1 is?"), vector)
    assert [match.asked.text for match in found] == ["What's part 1", "What is part 1?"]
    assert similar.find(Scope(SCOPE.collections, b"j"), features("What is part 1?"), vector) == []


@pytest.mark.parametrize("vector", [(0.0, 0.0), (float("nan"), 1.0), (1.0, 0.0, 0.0)])
def test_a_vector_that_cannot_be_compared_finds_nothing(
    similar: SimilarQuestions, vector: tuple[float, ...]
) -> None:
    similar.add(SCOPE, asked("What is part 1?"), np.array((1.0, 0.0), np.float32))
    wrong = np.array(vector, np.float32)
    assert similar.find(SCOPE, features("What is part 1?"), wrong) == []
    if len(vector) == 2:
        similar.add(SCOPE, asked("What is part 2?"), wrong)
        assert similar.find(SCOPE, features("What is part 2?"), wrong) == []


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    similar = SimilarQuestions(0.9, 4_000_000, 600)
    vectors = np.random.default_rng(1).normal(size=(1_500, 384)).astype(np.float32)
    for number, vector in enumerate(vectors):
        similar.add(SCOPE, asked(f"What is part {number}?"), vector)
    assert similar.bytes_held <= 4_000_000
    assert similar.find(SCOPE, features("What is part 0?"), vectors[0]) == []
    assert similar.find(SCOPE, features("What is part 1499?"), vectors[-1])
    for number, vector in enumerate(vectors[:300]):
        other = Scope(SCOPE.collections, str(number).encode())
        similar.add(other, asked("What is part 1?"), vector)
    assert similar.bytes_held <= 4_000_000


def test_a_scope_that_is_not_used_is_dropped() -> None:
    similar = SimilarQuestions(0.9, 1_000_000, 0.05)
    vector = np.array([1.0, 0.0], np.float32)
    similar.add(SCOPE, asked("What is part 1?"), vector)
    assert similar.find(SCOPE, features("What is part 1?"), vector)
    time.sleep(0.06)
    assert similar.find(SCOPE, features("What is part 1?"), vector) == []


@pytest.mark.parametrize("limit", [100_000, 300_000, 1_000_000])
def test_a_scope_alone_stays_below_the_limit(limit: int) -> None:
    """The ring that is held is measured, not what was noted when it was put there."""
    similar = SimilarQuestions(0.9, limit, 600)
    chance = np.random.default_rng(0)
    for number in range(400):
        vector = chance.normal(size=384).astype(np.float32)
        words = " ".join(f"part{number}x{place}" for place in range(20))
        question = asked(f"Is the pump with {words} maintained?")
        similar.add(SCOPE, question, vector)
        (ring,) = similar._rings.values()
        assert ring.bytes == similar.bytes_held <= limit
        (match,) = similar.find(SCOPE, question.features, vector)
        assert match.asked.text == question.text


def test_the_memory_of_a_question_is_not_underrated() -> None:
    short, long = "Is it on?", "Is the " + " ".join(f"w{n % 10}x{n}" for n in range(45)) + " on?"
    for text, line in ((short, short), (long, long), (short + " " * 7_000, short)):
        question = Asked(text, features(line), b"k")
        seen: dict[int, int] = {}
        _measure(question.text, seen)
        for name in Features.__slots__:
            _measure(getattr(question.features, name), seen)
        assert sum(seen.values()) <= question.bytes <= 3 * sum(seen.values()) + 1_000


def _measure(value: object, seen: dict[int, int]) -> None:
    if id(value) not in seen:
        seen[id(value)] = sys.getsizeof(value)
        for each in value if isinstance(value, tuple) else ():
            _measure(each, seen)
