"""Words, vectors or the reranker: one of them is enough to find passages relevant."""

from __future__ import annotations

import pytest
from raglan.deadline import Deadline
from raglan_generator import relevance
from raglan_generator.generation import Passage, Request

TEXT = "The reranker runs on the second GPU. Devices are set by a variable."


async def judged(
    question: str, *, similarity: float | None = None, reranked: float | None = None
) -> float:
    passage = Passage(TEXT, similarity=similarity, reranked=reranked)
    support = await relevance.judge(Request(question, (passage,)), Deadline.after(5))
    return support.confidence


async def test_a_paraphrase_is_relevant_by_meaning() -> None:
    paraphrase = "Wo laeuft die Neusortierung?"
    assert await judged(paraphrase) < 0.1
    assert await judged(paraphrase, similarity=0.7) > 0.9
    assert await judged(paraphrase, reranked=0.9) >= 0.9


async def test_shared_words_are_enough() -> None:
    assert await judged("Where does the reranker run?") > 0.5


@pytest.mark.parametrize("similarity", [None, 0.1, 0.2])
async def test_another_subject_is_irrelevant(similarity: float | None) -> None:
    assert await judged("Who won the cup in 1998?", similarity=similarity, reranked=0.02) < 0.2


async def test_scores_of_another_scale_are_no_probabilities() -> None:
    assert await judged("Who won the cup in 1998?", reranked=7.5) < 0.2


async def test_without_passages_nothing_is_relevant() -> None:
    support = await relevance.judge(Request("Why?", ()), Deadline.after(5))
    assert support.confidence == 0
