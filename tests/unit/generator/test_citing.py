"""From a model's text with markers to citations that hold."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.citing import Citer, groundedness
from raglan_generator.generation import ABSTENTION, Citation, Delta, Passage

PASSAGES = (
    Passage("Raglan pins devices. The reranker runs on the second GPU.", start=100),
    Passage("Retries draw on a budget. It is 10 % of the requests.", start=7),
    Passage("  \n "),
)


def cited(pieces: Iterable[str]) -> tuple[list[str | Citation], Citer]:
    """The answer's text between its citations, and the citer at the end."""
    citer, joined = Citer(PASSAGES), list[str | Citation]([""])
    events = [event for piece in pieces for event in citer.feed(piece)] + list(citer.flush())
    for event in events:
        if isinstance(event, Citation):
            joined += [event, ""]
        else:
            assert isinstance(event, Delta)
            joined[-1] = f"{joined[-1]}{event.text}"
    return joined, citer


def text_of(joined: list[str | Citation]) -> str:
    return "".join(item for item in joined if isinstance(item, str))


def test_a_marker_becomes_the_sentence_that_supports_it() -> None:
    joined, _ = cited(["The reranker runs on the second GPU [1]."])
    quote = "The reranker runs on the second GPU."
    assert joined == [
        "The reranker runs on the second GPU [1]",
        Citation(marker=1, passage_index=0, quote=quote, start=121, end=121 + len(quote)),
        ".",
    ]


def test_markers_are_numbered_by_quoted_sentence() -> None:
    joined, _ = cited(["The budget is 10 % of requests [2]. The second GPU reranks [1]. 10 % [2]."])
    assert text_of(joined) == (
        "The budget is 10 % of requests [1]. The second GPU reranks [2]. 10 % [1]."
    )
    citations = [item for item in joined if isinstance(item, Citation)]
    assert [(c.marker, c.passage_index) for c in citations] == [(1, 1), (2, 0)]


@pytest.mark.parametrize("marker", ["[0]", "[3]", "[4]", "[99, 4]"])
def test_a_marker_that_names_nothing_is_removed(marker: str) -> None:
    joined, citer = cited([f"The reranker runs on a GPU {marker}. Yes."])
    assert joined == ["The reranker runs on a GPU. Yes."]
    assert groundedness(citer.claims()) == 0


@given(st.data())
def test_every_cut_gives_the_same_answer_and_citations(data: st.DataObject) -> None:
    text = data.draw(
        st.lists(
            st.sampled_from(
                ["The reranker runs", " on a GPU", ".", " ", "[1]", " [2, 1]", "[9]", "Retries"]
            ),
            max_size=12,
        ).map("".join)
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert cited(pieces)[0] == cited([text])[0]


def test_groundedness_is_the_share_of_supported_sentences() -> None:
    _, citer = cited(["The reranker runs on the second GPU [1]. Bananas are yellow fruits [2]."])
    assert groundedness(citer.claims()) == 0.5


@pytest.mark.parametrize("answer", ["It runs on the second GPU.[1]", "It runs on the GPU [1]."])
def test_support_counts_with_the_marker_on_either_side_of_the_stop(answer: str) -> None:
    assert groundedness(cited([answer])[1].claims()) == 1


def test_claims_are_the_answers_sentences_with_their_markers() -> None:
    joined, citer = cited(["It is 10 % [2][1]. The moon is cheese. The reranker runs [1]."])
    text = text_of(joined)
    assert [(text[c.start : c.end], c.markers) for c in citer.claims()] == [
        ("It is 10 % [1][2].", (1, 2)),
        ("The moon is cheese.", ()),
        ("The reranker runs [3].", (3,)),
    ]


@given(st.lists(st.sampled_from(["A GPU", ". ", "[1]", " [2, 1]", "[9]", "Retries draw"])))
def test_claims_lie_in_the_answer_and_cite_what_was_cited(pieces: list[str]) -> None:
    joined, citer = cited(pieces)
    text, end = text_of(joined), 0
    shown = {item.marker for item in joined if isinstance(item, Citation)}
    for claim in citer.claims():
        assert end <= claim.start < claim.end <= len(text)
        assert set(claim.markers) <= shown
        assert 0 <= claim.support <= 1
        end = claim.end


def test_the_models_abstention_is_recognised() -> None:
    _, citer = cited([ABSTENTION])
    assert citer.abstained
    assert citer.claims() == ()
