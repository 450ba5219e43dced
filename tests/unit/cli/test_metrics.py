"""Expected values: by hand, and from pytrec_eval-terrier 0.5.11 for the same rankings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_cli import metrics
from raglan_cli.evaluate import documents_of, quality

Q1 = (["x", "b", "a", "y", "z", "c"], {"a": 1, "b": 2, "c": 1})
Q2 = (["e", "f", "d", "h"], {"d": 3, "e": 0, "f": 1, "g": 2})


@pytest.mark.parametrize(
    ("ranked", "grades", "expected"),
    [(*Q1, 0.6764976735216925), (*Q2, 0.447499501061509), (["n", "o"], {"m": 1}, 0.0)],
)
def test_ndcg_is_that_of_pytrec_eval(ranked, grades, expected):
    assert metrics.ndcg(ranked, grades, 10) == pytest.approx(expected, abs=1e-12)


def test_ndcg_by_hand_of_one_relevant_document_at_rank_two():
    assert metrics.ndcg(["x", "a"], {"a": 1}, 10) == pytest.approx(1 / math.log2(3))


def test_ndcg_sees_nothing_below_its_depth():
    assert metrics.ndcg(["x"] * 10 + ["a"], {"a": 1}, 10) == 0


def test_recall_counts_only_relevant_documents_in_both_its_halves():
    ranked, grades = Q2
    assert metrics.recall(ranked, grades, 3) == pytest.approx(2 / 3)
    assert metrics.recall(ranked, grades, 1) == 0


def test_reciprocal_rank_is_of_the_first_relevant_document():
    assert metrics.reciprocal_rank(*Q1, 10) == 0.5
    assert metrics.reciprocal_rank(["x", "a"], {"a": 1}, 1) == 0


@given(st.permutations("abcdefgh"), st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3)))
def test_no_ranking_is_better_than_that_by_grade(ranked, grades):
    ideal = sorted(ranked, key=lambda document: -grades.get(document, 0))
    best = 1.0 if any(grades.values()) else 0.0
    assert metrics.ndcg(ideal, grades, 10) == pytest.approx(best)
    assert metrics.ndcg(ranked, grades, 10) <= best + 1e-12


def test_a_percentile_is_a_value_that_was_measured():
    assert metrics.percentile([4, 1, 3, 2], 0.5) == 2
    assert metrics.percentile(range(1, 101), 0.95) == 95
    assert metrics.percentile([], 0.5) == 0


def test_documents_are_ranked_by_their_best_passage():
    passages = [{"document_id": d} for d in ("b", "a", "b", "c", "a")]
    assert documents_of(passages) == ["b", "a", "c"]


def test_each_query_has_its_figures():
    figures = quality([(["a"], {"a": 1}), (["x"], {"a": 1})])
    assert figures == {
        "ndcg_at_10": [1, 0],
        "recall_at_3": [1, 0],
        "recall_at_10": [1, 0],
        "recall_at_50": [1, 0],
        "mrr_at_10": [1, 0],
    }


@pytest.mark.parametrize(
    ("answer", "wanted", "found"),
    [
        ("Normandy lies in  FRANCE. [1]", ["france"], True),
        ("In the 10th [1][2] century.", ["10th century"], True),
        ("Straße", ["STRASSE"], True),
        ("It lies in Spain.", ["France", "Gaul"], False),
    ],
)
def test_an_answer_contains_a_known_one_whatever_case_spacing_and_markers(answer, wanted, found):
    assert metrics.contains_any(answer, wanted) is found


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("", 0),
        ("One sentence without an end", 1),
        ("Rollo led them. [1] He was a Viking. [2]", 2),
        ("No stop here [1] nor here [2][3]", 2),
        ("Dr. Smith met J. R. Jones in the U.S. Army. Then he left.", 2),
        ('He said "Go." She went. They stayed! Did they? Yes.', 5),
    ],
)
def test_sentences_are_counted_past_markers_and_abbreviations(answer, count):
    assert metrics.sentence_count(answer) == count
