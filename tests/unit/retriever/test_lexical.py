"""The lexical leg's vectors, and the mean length they are weighed by."""

from __future__ import annotations

import pytest
from qdrant_edge import Bm25, Bm25Config
from raglan.errors import InvalidInput
from raglan_retriever import lexical
from raglan_retriever.collection import Collection, MeanLength, Model, check_new_model
from raglan_retriever.settings import RetrieverSettings


def test_spaced_text_gets_exactly_qdrants_own_vector():
    text = "Running a retry budget: v1.5 costs 3 %"
    theirs = Bm25(Bm25Config(language="english", avg_len=12.0)).embed_document(text)
    (ours,) = lexical.documents([text], "english", 12.0)
    assert (ours.indices, ours.values) == (list(theirs.indices), list(theirs.values))


@pytest.mark.parametrize(
    ("text", "part"),
    [("今天天气很好", "天气"), ("สวัสดีชาวโลก", "ชาวโลก"), ("テストを書く", "テスト")],
)
def test_scripts_without_spaces_are_cut_into_words(text, part):
    whole, wanted = lexical.query(text, "english"), lexical.query(part, "english")
    assert wanted.indices
    assert set(wanted.indices) <= set(whole.indices)


def test_mixed_text_keeps_the_words_of_both_scripts():
    mixed = set(lexical.query("retry 天气 budget", "english").indices)
    assert mixed == {
        index
        for part in ("retry", "天气", "budget")
        for index in lexical.query(part, "english").indices
    }


def test_words_are_counted_with_repeats_and_without_stop_words():
    assert lexical.words(["the cat and the cat", "", "天气 cat"], "english") == [2, 0, 2]


def test_longer_than_the_mean_weighs_less():
    short, long = lexical.documents(["cat", "cat " + "dog " * 50], "english", 10.0)
    cat = short.indices[0]
    assert short.values[0] > long.values[long.indices.index(cat)]


def test_the_mean_length_is_learned_from_the_first_chunks_and_then_stays():
    mean = MeanLength()
    assert mean.value == 1.0
    mean = mean.and_([10, 20])
    assert (mean.value, mean.learning) == (15.0, True)
    mean = mean.and_([30] * 998)
    assert not mean.learning


def test_a_corpus_without_words_has_a_mean_to_divide_by():
    assert MeanLength().and_([0, 0]).value == 1.0


def test_a_description_survives_its_json():
    made = Collection("c", Model("m", "r", 3), 1, 2, "2026-01-01", "german", MeanLength(5.0, 2))
    assert Collection.from_json(made.to_json()) == made


@pytest.mark.parametrize("model", [Model("", "r", 3), Model("m", "r", 0), Model("m", "r", 9000)])
def test_a_collection_needs_a_model_with_a_name_and_a_size(model):
    with pytest.raises(InvalidInput):
        check_new_model(model)


def test_a_language_without_stop_words_is_refused_by_name():
    with pytest.raises(ValueError, match="klingon"):
        RetrieverSettings(language="klingon")
