"""Readability of a text by a model's tokenizer."""

# ruff: noqa: RUF001

from __future__ import annotations

from itertools import product

import pytest
from raglan.encoders import model as models
from raglan.encoders.readability import ReadabilityMeter
from raglan.readability import (
    READABLE,
    UNREADABLE,
    Readability,
    count_words,
    credit,
    credit_between,
    query_credit,
)
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

ENGLISH = (
    "The committee met on Thursday and decided that the bridge across the river should be "
    "repaired before the winter, because the engineers had found cracks in two of its pillars."
)
CODE = (
    "Set `RAGLAN_GATEWAY_MAX_TOP_K=50`, then call `client.search(query, top_k=10)`:\n\n"
    "    for passage in found.passages:\n        print(passage.document_id, passage.score)\n"
)
OTHERS = {
    "German": "Der Ausschuss beschloss, die Brücke vor dem Winter instand setzen zu lassen.",
    "Turkish": "Komisyon köprünün kıştan önce onarılmasına karar verdi ve haber gönderdi.",
    "Vietnamese": "Ủy ban đã quyết định sửa chữa cây cầu trước mùa đông năm nay.",
    "Greek": "Η επιτροπή αποφάσισε να επισκευαστεί η γέφυρα πριν από τον χειμώνα.",
    "Russian": "Комиссия решила отремонтировать мост через реку до наступления зимы.",
    "Arabic": "قررت اللجنة إصلاح الجسر قبل حلول فصل الشتاء بسبب الشقوق.",
    "Hindi": "समिति ने सर्दियों से पहले पुल की मरम्मत करने का निर्णय लिया।",
    "Thai": "คณะกรรมการตัดสินใจซ่อมสะพานก่อนฤดูหนาวจะมาถึง",
    "Chinese": "委员会决定在冬季来临之前修复河上的桥梁，因为工程师发现了裂缝。",
    "Japanese": "委員会は冬が来る前に川にかかる橋を修理することを決めました。",
    "Korean": "위원회는 겨울이 오기 전에 다리를 수리하기로 결정했다.",
}


@pytest.fixture(scope="module")
def english() -> tuple[Tokenizer, ReadabilityMeter]:
    folder = models.read(models.DEFAULT_MODEL).path
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer, ReadabilityMeter(tokenizer)


def read(model: tuple[Tokenizer, ReadabilityMeter], text: str, start: int = 0) -> float:
    tokenizer, meter = model
    return meter.measure(text, tokenizer.encode(text), start=start).value


Model = tuple[Tokenizer, ReadabilityMeter]


@pytest.mark.parametrize("text", [ENGLISH, CODE, "2026-11-28 14:05", "?"])
def test_english_code_and_text_without_words_are_readable(english: Model, text: str) -> None:
    assert read(english, text) >= READABLE


@pytest.mark.parametrize("language", OTHERS)
def test_an_english_model_does_not_read_other_languages(english: Model, language: str) -> None:
    assert read(english, OTHERS[language]) <= UNREADABLE


def test_a_mixed_text_is_in_between(english: Model) -> None:
    mixed = read(english, f"{ENGLISH} {OTHERS['Russian']}")
    assert read(english, OTHERS["Russian"]) < 0.2 < mixed < 0.9 < read(english, ENGLISH)


def test_a_prompt_does_not_count(english: Model) -> None:
    prompt = "Represent this sentence for searching relevant passages: "
    text = OTHERS["Russian"]
    assert read(english, prompt + text, start=len(prompt)) == read(english, text)


def test_only_what_the_model_reads_counts(english: Model) -> None:
    tokenizer, meter = english
    encoding = tokenizer.encode(f"{'word ' * 400} {OTHERS['Greek']}")
    encoding.truncate(200)
    assert meter.measure(f"{'word ' * 400} {OTHERS['Greek']}", encoding).value == 1.0


def word_piece(*alphabets: str) -> Model:
    """A tokenizer of single letters and of all pairs of the letters of each alphabet."""
    letters = [letter for alphabet in alphabets for letter in alphabet]
    pairs = [a + b for alphabet in alphabets for a, b in product(alphabet, repeat=2)]
    pieces = [*letters, *pairs]
    vocabulary = ["[UNK]", *pieces, *(f"##{piece}" for piece in pieces)]
    tokenizer = Tokenizer(
        WordPiece({piece: id_ for id_, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer, ReadabilityMeter(tokenizer)


LATIN = "abcdefghijklmnopqrstuvwxyz"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
GREEK = "αβγδεζηθικλμνξοπρστυφχψως"
HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"


def test_short_pieces_are_read_by_a_vocabulary_of_many_languages_only() -> None:
    text = "комиссия решила"
    assert read(word_piece(LATIN, CYRILLIC), text) == 0.0
    assert read(word_piece(LATIN, CYRILLIC, GREEK, HEBREW), text) > READABLE
    assert read(word_piece(LATIN, CYRILLIC, GREEK, HEBREW), "ไทย") == 0.0


@pytest.mark.parametrize(
    ("text", "words"), [("two words", 2), ("東京都庁舎", 1), ("1.5 %", 0), ("a_b", 2)]
)
def test_words_are_counted(text: str, words: float) -> None:
    assert count_words(text) == words


def test_credit_rises_from_unreadable_to_readable() -> None:
    assert credit(UNREADABLE) == 0.0
    assert 0 < credit((UNREADABLE + READABLE) / 2) < 1
    assert credit(READABLE) == 1.0


def test_a_short_query_of_rare_names_is_judged_by_the_texts_that_it_asks() -> None:
    names = Readability(0.3, 1.0)
    assert query_credit(names, None) == 0.0
    assert query_credit(names, 0.95) == 1.0
    assert query_credit(names, 0.3) == 0.0


def test_a_long_query_in_another_language_is_not() -> None:
    assert query_credit(Readability(0.1, 12.0), 0.95) == 0.0


def test_texts_count_by_their_length() -> None:
    long, short = Readability(0.9, 200.0), Readability(0.0, 2.0)
    assert credit_between(Readability(0.9, 6.0), [long, short, short]) == 1.0


def test_texts_without_words_take_nothing_away() -> None:
    assert credit_between(Readability(1.0, 0.0), [Readability(1.0, 0.0)]) == 1.0
