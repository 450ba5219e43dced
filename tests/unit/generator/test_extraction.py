"""Which sentences are picked, and how sure the extraction is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.cues import cue_of
from raglan_generator.extraction import extract
from raglan_generator.generation import Passage
from raglan_generator.support import confidence
from raglan_generator.terms import grams, terms

NORMANS = Passage(
    "The Normans gave their name to Normandy. They were descended from Norse raiders. "
    "Their leader Rollo swore fealty to King Charles III in the year 911.",
    title="Normans",
)
STEAM = Passage("Boilers hold water. A valve releases steam when the pressure is too high.")


def best(question: str, *passages: Passage) -> str:
    found = extract(question, passages, max_sentences=1)
    sentence = found.sentences[0]
    return passages[sentence.passage].text[sentence.span.start : sentence.span.end]


def test_the_sentence_with_the_questions_words_wins() -> None:
    assert best("Who did Rollo swear fealty to?", STEAM, NORMANS).startswith("Their leader Rollo")


def test_inflected_words_match() -> None:
    assert best("What do valves release?", NORMANS, STEAM).startswith("A valve releases")


def test_a_sentence_answers_through_the_one_before_it() -> None:
    passage = Passage("The tower stands in Ghent. It has 12 floors. Cats sleep. Dogs bark.")
    found = extract("How many storeys has the tower in Ghent?", [passage], max_sentences=2)
    picked = [passage.text[s.span.start : s.span.end] for s in found.in_reading_order()]
    assert picked == ["The tower stands in Ghent.", "It has 12 floors."]


def test_without_a_shared_word_nothing_is_picked() -> None:
    assert extract("Who painted the Mona Lisa?", [NORMANS, STEAM]).sentences == ()


def test_the_passages_scores_break_a_tie() -> None:
    low, high = Passage("Rollo ruled.", score=0.1), Passage("Rollo slept.", score=0.9)
    assert best("What about Rollo?", low, high) == "Rollo slept."


@given(st.lists(st.text(max_size=200).map(Passage), max_size=6), st.text(max_size=80))
def test_any_text_gives_at_most_three_sentences_within_the_passages(
    passages: list[Passage], question: str
) -> None:
    found = extract(question, passages)
    assert len(found.sentences) <= 3
    assert 0 <= found.confidence <= 1
    for sentence in found.sentences:
        assert 0 <= sentence.span.start < sentence.span.end
        assert sentence.span.end <= len(passages[sentence.passage].text)


@given(st.floats(0, 1), st.floats(0, 1), st.none() | st.floats(-1, 1), st.floats(0, 0.5))
def test_confidence_rises_with_every_kind_of_support(
    match: float, share: float, similarity: float | None, more: float
) -> None:
    low = confidence(match=match, share=share, similarity=similarity)
    rise = None if similarity is None else similarity + more
    high = confidence(match=match + more, share=share + more, similarity=rise)
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize(
    ("question", "with_cue", "without"),
    [
        ("How many towers?", "There are twelve.", "There are some."),
        ("When was it built?", "It was built in 1905.", "It was built later."),
        ("Who built it?", "It was built by Anna.", "It was built by her."),
        ("Where is it?", "It stands in Ghent.", "It stands there."),
    ],
)
def test_a_cue_is_what_the_question_asks_for(question: str, with_cue: str, without: str) -> None:
    cue = cue_of(question)
    assert cue(with_cue)
    assert not cue(without)


def test_terms_of_scripts_without_spaces_are_pairs_of_characters() -> None:
    assert terms("東京都 tower") == ["東京", "京都", "tower"]


def test_terms_drop_stop_words_and_endings() -> None:
    assert terms("What are the running engines?") == ["run", "engin"]


def test_a_short_term_has_one_piece() -> None:
    assert grams("ab") == {"^ab"}
