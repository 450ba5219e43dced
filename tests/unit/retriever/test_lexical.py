"""The lexical leg's vectors, the mean length they are weighed by, and the languages they are of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from raglan.errors import Conflict, InvalidInput
from raglan.terms import ANALYSIS
from raglan_retriever import lexical
from raglan_retriever.collection import Collection, MeanLength, Model, check_new_model
from raglan_retriever.settings import RetrieverSettings

COLLECTION = Collection("c", Model("m", "r", 3), 1, 2, "2026-01-01", "en")


def counts(text: str, language: str = "en") -> dict[int, int]:
    return lexical.analyse(text, language, "en").counts


def asked(text: str, *languages: str, default: str = "en") -> set[int]:
    return set(lexical.query(text, languages, default).indices)


def test_a_term_weighs_what_bm25_says():
    analysis = lexical.analyse("cat cat dog", "en", "en")
    vector = lexical.document(analysis, mean_length=2.0)
    weights = dict(zip(vector.indices, vector.values, strict=True))
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 2)
    assert weights[lexical.term_id("cat")] == pytest.approx(2 * 2.2 / (2 + norm))
    assert weights[lexical.term_id("dog")] == pytest.approx(1 * 2.2 / (1 + norm))


def test_term_ids_are_those_of_stored_collections():
    """Another hash would leave every stored collection without matches."""
    assert (lexical.term_id("cat"), lexical.term_id("天气")) == (2656977832, 4232516028)


def test_longer_than_the_mean_weighs_less():
    short, long = (
        lexical.document(lexical.analyse(text, "en", "en"), 10.0)
        for text in ("cat", "cat " + "dog " * 50)
    )
    assert short.values[0] > long.values[long.indices.index(short.indices[0])]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("今天天气很好", "天气"),
        ("สวัสดีชาวโลก", "ชาวโลก"),
        ("テストを書く", "テスト"),
        ("출장 숙박비는 얼마입니까", "숙박비"),
        ("retry 天气 budget", "budgets"),
        ("Das Büro in Köln", "Bu\u0308ro"),
    ],
)
def test_a_word_is_found_inside_running_text(text: str, part: str):
    wanted = asked(part, "en")
    assert wanted
    assert wanted <= set(counts(text))


def test_the_language_of_a_text_is_detected_where_none_is_given():
    text = "Die Häuser wurden im Jahr 1850 aus roten Ziegeln gebaut."
    assert lexical.analyse(text, "", "en").language == "de"
    assert lexical.analyse(text, "nl", "en").language == "nl"
    assert lexical.analyse("KX-88213", "", "en").language == "en"


def test_a_query_matches_each_language_of_its_collection():
    german, english = counts("Häusern", "de"), counts("running", "en")
    assert set(german) <= asked("Häuser", "en", "de")
    assert set(english) <= asked("runs", "en", "de")
    assert not set(german) <= asked("Häuser", "en")


def test_stop_words_of_a_query_are_those_of_its_own_language():
    die = lexical.term_id("die")
    assert die in asked("Why do stars die?", "en", "de")
    assert die not in asked("Wann wurden die Häuser aus Ziegeln gebaut?", "en", "de")


def test_a_query_of_stop_words_has_no_vector():
    assert lexical.query("what is the", ["en"], "en").indices == []
    assert lexical.query("?! 🎉", ["en"], "en").indices == []


def test_a_long_query_is_searched_by_its_first_terms():
    vector = lexical.query(" ".join(f"word{n}" for n in range(5000)), ["en"], "en")
    assert len(vector.indices) == 256


def test_the_mean_length_is_learned_from_the_first_chunks_and_then_stays():
    mean = MeanLength()
    assert mean.value == 1.0
    mean = mean.including([10, 20])
    assert (mean.value, mean.is_learning) == (15.0, True)
    mean = mean.including([30] * 998)
    assert not mean.is_learning
    held = replace(COLLECTION, mean_length=mean)
    assert held.with_texts([1000], []).mean_length == mean


def test_a_corpus_without_words_has_a_mean_to_divide_by():
    assert MeanLength().including([0, 0]).value == 1.0


def test_languages_are_kept_once_in_the_order_in_which_they_came():
    assert COLLECTION.with_texts([], ["de", "en"]).with_texts([], ["en", "fr"]).languages == (
        "de",
        "en",
        "fr",
    )


def test_a_description_survives_its_json():
    made = replace(COLLECTION, mean_length=MeanLength(5.0, 2), languages=("en", "de"))
    assert Collection.from_json(made.to_json()) == made


def test_terms_of_an_older_analysis_are_refused_with_the_way_out():
    stored = COLLECTION.to_json()
    del stored["analysis"], stored["languages"]
    older = Collection.from_json(stored)
    with pytest.raises(Conflict, match="ingest its documents again"):
        older.check_analysis()
    replace(older, analysis=ANALYSIS).check_analysis()


@pytest.mark.parametrize("model", [Model("", "r", 3), Model("m", "r", 0), Model("m", "r", 9000)])
def test_a_collection_needs_a_model_with_a_name_and_a_size(model):
    with pytest.raises(InvalidInput):
        check_new_model(model)


@pytest.mark.parametrize(("given", "code"), [("english", "en"), ("de", "de"), ("Turkish", "tr")])
def test_the_default_language_has_a_code_or_an_english_name(given: str, code: str):
    assert RetrieverSettings(language=given).language == code


def test_a_language_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="klingon"):
        RetrieverSettings(language="klingon")
