"""Which sentences are picked, and how sure the extraction is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.blocks import Block, BlockKind, Cell
from raglan_generator.cues import cue_of
from raglan_generator.extraction import extract
from raglan_generator.features import candidates_of, features
from raglan_generator.generation import Passage
from raglan_generator.joining import stretches_of
from raglan_generator.support import Evidence
from raglan_generator.terms import grams

NORMANS = Passage(
    "The Normans gave their name to Normandy. They were descended from Norse raiders. "
    "Their leader Rollo swore fealty to King Charles III in the year 911.",
    title="Normans",
)
STEAM = Passage("Boilers hold water. A valve releases steam when the pressure is too high.")


def best(question: str, *passages: Passage) -> str:
    found = extract(question, passages, max_sentences=1)
    return found.quotes[0].text


def test_the_sentence_with_the_questions_words_wins() -> None:
    assert best("Who did Rollo swear fealty to?", STEAM, NORMANS).startswith("Their leader Rollo")


def test_inflected_words_match() -> None:
    assert best("What do valves release?", NORMANS, STEAM).startswith("A valve releases")


def test_a_sentence_answers_through_the_one_before_it() -> None:
    passage = Passage("The tower stands in Ghent. It has 12 floors. Cats sleep. Dogs bark.")
    found = extract("How many storeys has the tower in Ghent?", [passage], max_sentences=2)
    picked = [quote.text for quote in found.in_reading_order()]
    assert picked == ["The tower stands in Ghent.", "It has 12 floors."]


def test_without_a_shared_word_nothing_is_picked() -> None:
    assert extract("Who painted the Mona Lisa?", [NORMANS, STEAM]).quotes == ()


def test_of_equal_sentences_that_of_the_better_passage_wins() -> None:
    first, second = Passage("Rollo ruled."), Passage("Rollo slept.")
    assert best("What about Rollo?", first, second) == "Rollo ruled."


def test_of_equal_sentences_that_of_the_nearer_passage_wins() -> None:
    far, near = Passage("Rollo ruled.", similarity=0.2), Passage("Rollo slept.", similarity=0.9)
    assert best("What about Rollo?", far, near) == "Rollo slept."


def test_the_sentence_wins_where_the_reranker_found_the_questions_words() -> None:
    text = "Rollo was a Norse leader. Rollo took an oath to the king."
    met = tuple(text.index(word) for word in ("oath", "king", "to the"))
    assert best("Whom did Rollo swear fealty?", Passage(text, matches=met)).startswith("Rollo took")
    assert best("Whom did Rollo swear fealty?", Passage(text)).startswith("Rollo was")


def test_no_sentence_is_quoted_twice() -> None:
    twice = [Passage("Rollo ruled.  Rollo slept."), Passage("Rollo\nruled. Rollo ate.")]
    found = extract("What about Rollo?", twice)
    picked = [quote.text for quote in found.quotes]
    assert picked[0] == "Rollo ruled."
    assert len({" ".join(text.split()) for text in picked}) == len(picked) == 3


def test_terms_that_stand_together_in_the_question_weigh_more_together() -> None:
    apart = "Steam drives the engine."
    passage = Passage(f"{apart} The steam engine came later.")
    assert best("What about the steam engine?", passage) == "The steam engine came later."


def test_rank_weighs_more_without_other_evidence() -> None:
    """The rank of a passage weighs more where nothing else is known of it."""
    texts = ("Rollo ruled.", "Rollo slept.")
    known = extract("What about Rollo?", [Passage(text, similarity=0.5) for text in texts])
    unknown = extract("What about Rollo?", [Passage(text) for text in texts])
    assert unknown.quotes[0].chance > known.quotes[0].chance > 0.5


def test_accents_do_not_count() -> None:
    khan = Passage("Tugh Temür wrote poems. The other khans did not.")
    assert best("What did Tugh Temur write?", STEAM, khan) == "Tugh Temür wrote poems."


TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(["Rollo", "ruled.", "Who?", "911", "東京。", "\n\n", "É"]), max_size=30
).map(" ".join)
PASSAGE = st.builds(
    Passage,
    TEXT,
    title=TEXT,
    similarity=st.none() | st.floats(-1, 1),
    matches=st.lists(st.integers(0, 80), max_size=8).map(tuple),
)


@given(TEXT, st.lists(PASSAGE, max_size=6), st.integers(1, 5))
def test_an_extraction_keeps_its_limits_whatever_it_is_given(
    question: str, passages: list[Passage], most: int
) -> None:
    found = extract(question, passages, max_sentences=most)
    assert len(found.quotes) <= most
    assert 0 <= found.confidence <= found.answerable <= 1
    assert all(0 <= part <= 1 for part in found.parts.values())
    assert sum(quote.chance for quote in found.quotes) <= 1.001
    for quote in found.quotes:
        passage = passages[quote.passage]
        assert passage.text[quote.start - passage.start : quote.end - passage.start] == quote.text
        assert quote.text.strip()


def test_a_code_is_not_nearly_another_one() -> None:
    """All rows but one share most pieces of the code, and none the word that is asked for."""
    rows = " ".join(f"P{n:05} is {n / 7:.2f} EUR." for n in range(4313, 4332))
    found = extract("What does P04321 cost?", [Passage(rows, similarity=0.53, language="fr")])
    assert found.quotes[0].text.startswith("P04321")
    assert found.quotes[0].chance > 0.5
    assert found.confidence > 0.5


def table(*rows: tuple[str, str]) -> Passage:
    text, cells = "", []
    for row in rows:
        text += "| "
        spans = []
        for cell in row:
            spans.append(Cell(len(text), len(text) + len(cell)))
            text += f"{cell} | "
        text = text[:-1] + "\n"
        cells.append(tuple(spans))
    block = Block(BlockKind.TABLE, 0, len(text), rows=tuple(cells), has_header=True)
    return Passage(text, similarity=0.6, reranked=0.5, blocks=(block,))


def test_a_row_with_little_of_the_question_is_no_answer() -> None:
    """The rows profit from their passage, which is the best, and look like settings."""
    settings = table(
        ("setting", "meaning"),
        ("`MAX_HEAT`", "the heat at which the pump stops"),
        ("`COLOUR`", "paint of the pump"),
    )
    others = [Passage("Cats sleep.", similarity=0.6)] * 3
    written = Passage("Turn the hose off at night from the left.", similarity=0.5)
    found = extract("How do I turn off the hose of the pump?", [settings, *others, written])
    assert [quote.text for quote in found.quotes] == [written.text]


SHARE = st.floats(0, 1)


@given(SHARE, SHARE, SHARE, SHARE, st.none() | st.floats(-1, 1), st.floats(0, 0.5))
def test_confidence_rises_with_every_kind_of_evidence(
    match: float,
    coverage: float,
    specifics: float,
    share: float,
    similarity: float | None,
    more: float,
) -> None:
    less = Evidence(match, coverage, similarity, specifics, share)
    risen = None if similarity is None else similarity + more
    rest = Evidence(match + more, coverage + more, risen, specifics + more, share + more)
    assert 0 <= less.confidence() <= rest.confidence() <= 1
    assert all(0 <= part <= 1 for part in rest.parts().values())


def test_the_cosine_is_a_part_of_the_confidence_where_it_is_known() -> None:
    question = "Who did Rollo swear fealty to?"
    near, far = (extract(question, [replace(NORMANS, similarity=cosine)]) for cosine in (0.8, 0.1))
    assert near.confidence > far.confidence
    assert near.parts["similarity"] == 0.8
    assert "similarity" not in extract(question, [NORMANS]).parts


def test_a_name_that_no_passage_holds_lowers_the_confidence() -> None:
    known, unknown = (extract(f"Did {name} swear fealty?", [NORMANS]) for name in ("Rollo", "Otto"))
    assert known.parts["specifics"] > 0.85
    assert unknown.parts["specifics"] < 0.5
    assert known.confidence > unknown.confidence


def test_a_unit_that_is_far_less_likely_than_the_best_is_left_out() -> None:
    found = extract("Who did Rollo swear fealty to?", [NORMANS, STEAM], max_sentences=99)
    assert [quote.text for quote in found.quotes] == [NORMANS.text.partition("raiders. ")[2]]


def test_confidence_counts_three_sentences() -> None:
    """The confidence is about three sentences however many are asked for."""
    question = "Who did Rollo swear fealty to?"
    one, many = (extract(question, [NORMANS, STEAM], max_sentences=n) for n in (1, 9))
    assert one.confidence == many.confidence


@pytest.mark.parametrize(
    ("question", "with_cue", "without"),
    [
        ("How many towers?", "There are twelve.", "There are some."),
        ("When was it built?", "It was built in 1905.", "It was built later."),
        ("Who built it?", "It was built by Anna.", "It was built by her."),
        ("Where is it?", "It stands in Ghent.", "It stands there."),
        ("Does it open on Sunday?", "It never opens on Sunday.", "Opening hours of Sunday."),
        ("if it rains, can I go in?", "Visitors cannot go in.", "Rain falls."),
    ],
)
def test_a_cue_is_what_the_question_asks_for(question: str, with_cue: str, without: str) -> None:
    cue = cue_of(question)
    assert cue is not None
    assert cue(with_cue)
    assert not cue(without)


@pytest.mark.parametrize("question", ["Is there a shorter way?", "Can you tell me the way?"])
def test_what_asks_for_a_thing_asks_for_no_verdict(question: str) -> None:
    assert cue_of(question) is None


def test_a_short_term_has_one_piece() -> None:
    assert grams("ab") == {"^ab"}


def test_what_follows_a_list_under_its_heading_completes_it() -> None:
    parts = {
        "## Moving a hive": Block(BlockKind.HEADING, 0, 0, level=2),
        "To move a hive:": Block(BlockKind.PARAGRAPH, 0, 0),
        "1. Close the hive.": Block(BlockKind.LIST_ITEM, 0, 0, level=1, label="1"),
        "2. Strap it.": Block(BlockKind.LIST_ITEM, 0, 0, level=1, label="2"),
        "Open the entrance at dawn.": Block(BlockKind.PARAGRAPH, 0, 0),
        "## Honey": Block(BlockKind.HEADING, 0, 0, level=2),
        "It keeps for years.": Block(BlockKind.PARAGRAPH, 0, 0),
    }
    text = "\n\n".join(parts)
    blocks = tuple(
        replace(block, start=text.index(part), end=text.index(part) + len(part))
        for part, block in parts.items()
    )
    found = extract("How do I move a hive?", [Passage(text, blocks=blocks)])
    quotes = [quote.text for quote in found.quotes]
    assert quotes[0].endswith("2. Strap it.")
    assert quotes[1:] == ["Open the entrance at dawn."]


def test_document_that_quotes_our_refusal_is_not_taken_at_its_word() -> None:
    text = "**The documents do not answer this.**\n\nThe pump refused to answer the documents once."
    found = extract("Why do the documents not answer this?", [Passage(text, blocks=())])
    assert all("do not answer this" not in quote.text for quote in found.quotes)


@pytest.mark.parametrize(
    ("text", "share"),
    [("Duran Duran played.", 1.0), ("Duran played.", 0.0), ("Nobody played.", 0.0)],
)
def test_a_word_said_twice_is_a_pair(text: str, share: float) -> None:
    passages = [Passage(text)]
    candidates = candidates_of(stretches_of(passages), passages)
    (found,) = features("Duran Duran", passages, candidates)
    assert found.pairs == share
