"""Tokenising from several threads, and cutting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.encoders import model as models
from raglan.encoders.tokenizer import PairTokenizers, Tokenizers
from raglan.errors import InvalidInput
from tokenizers import Encoding, Tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return Tokenizers(models.locate(models.DEFAULT_MODEL), max_tokens=32)


def test_ids_carry_the_special_tokens(tokenizers: Tokenizers) -> None:
    assert tokenizers.ids(["hello world", ""]) == [[101, 7592, 2088, 102], [101, 102]]


def test_a_long_text_is_cut_at_the_end(tokenizers: Tokenizers) -> None:
    (cut,) = tokenizers.ids(["hello " * 100])
    assert cut == [101, *[7592] * 30, 102]


def test_many_threads_tokenise_at_once(tokenizers: Tokenizers) -> None:
    texts = [f"text number {number} " * 20 for number in range(50)]
    expected = tokenizers.ids(texts)
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: tokenizers.ids(texts), range(40)))
    assert all(result == expected for result in results)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud7ff", "日本語", "مرحبا", "🙂" * 500, "\u200b"])
def test_any_text_has_tokens(tokenizers: Tokenizers, text: str) -> None:
    (ids,) = tokenizers.ids([text])
    assert 2 <= len(ids) <= 32


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    folder = models.locate(models.DEFAULT_MODEL)
    Tokenizers(folder, 32, ["word " * 29])
    with pytest.raises(InvalidInput, match="takes 32 tokens; the model reads 32"):
        Tokenizers(folder, 32, ["query: ", "word " * 30])


@given(prompt=st.integers(0, 5), text=st.integers(0, 60))
def test_a_prompt_is_never_cut(tokenizers: Tokenizers, prompt: int, text: int) -> None:
    before, after = "query " * prompt, "word " * text
    ids, alone = tokenizers.ids([before + after, before])
    assert ids[: len(alone) - 1] == alone[:-1]


@pytest.fixture(scope="module")
def pair_tokenizers() -> PairTokenizers:
    return PairTokenizers(models.locate(models.DEFAULT_MODEL), max_tokens=32)


def test_a_pair_carries_special_tokens_and_types(pair_tokenizers: PairTokenizers) -> None:
    (pair,) = pair_tokenizers.pairs("hello", ["hello world"])
    assert pair.ids == [101, 7592, 102, 7592, 2088, 102]
    assert pair.types == [0, 0, 0, 1, 1, 1]


@given(query=st.integers(1, 28), passage=st.integers(0, 60))
def test_of_a_pair_the_passages_end_is_cut_and_never_the_query(
    pair_tokenizers: PairTokenizers, query: int, passage: int
) -> None:
    (pair,) = pair_tokenizers.pairs("hello " * query, ["world " * passage])
    assert pair.ids.count(7592) == query
    assert pair.ids.count(2088) == min(passage, 32 - 3 - query)
    assert len(pair.ids) == len(pair.types) <= 32


def test_a_query_that_leaves_no_room_is_refused(pair_tokenizers: PairTokenizers) -> None:
    with pytest.raises(InvalidInput, match="query takes 29 tokens; the model reads 32"):
        pair_tokenizers.pairs("hello " * 29, ["world"])


LONG = ["word " * 5_000, " " * 20_000 + "word " * 40, "日本語" * 3_000, "x" * 9_000 + " word" * 50]


def test_a_long_text_is_read_as_if_it_had_been_tokenised_whole(tokenizers: Tokenizers) -> None:
    whole = Tokenizer.from_file(str(models.locate(models.DEFAULT_MODEL) / "tokenizer.json"))
    whole.no_padding()
    whole.enable_truncation(32)
    expected = [whole.encode(text).ids for text in LONG]
    assert tokenizers.ids(LONG) == expected
    assert [each.ids for each in tokenizers.read(LONG)] == expected
    assert [each.ids for each in tokenizers.located(LONG)] == expected


@pytest.mark.parametrize("method", ["ids", "read", "located"])
def test_the_end_of_a_long_text_is_never_tokenised(
    tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen: list[int] = []
    own = tokenizers._clones.own()

    class Counting:
        def encode_batch(self, texts: list[str]) -> list[Encoding]:
            seen.extend(map(len, texts))
            return own.encode_batch(texts)

        encode_batch_fast = encode_batch

    monkeypatch.setattr(tokenizers._clones, "own", Counting)
    getattr(tokenizers, method)(["word " * 1_000_000])
    assert sum(seen) < 2_000


def test_of_a_long_text_the_tokens_that_are_cut_are_estimated(tokenizers: Tokenizers) -> None:
    (read,) = tokenizers.read(["word " * 100_000])
    assert read.truncated == pytest.approx(100_000 - 30, rel=0.05)


def test_a_long_passage_of_a_pair_is_cut_alike(pair_tokenizers: PairTokenizers) -> None:
    (short, long) = pair_tokenizers.pairs("hello", ["world " * 40, "world " * 100_000])
    assert short == long


def test_a_passage_may_be_limited_whatever_the_query_takes() -> None:
    tokenizers = PairTokenizers(models.locate(models.DEFAULT_MODEL), 32, passage_tokens=5)
    for words in (1, 9):
        (pair,) = tokenizers.pairs("hello " * words, ["world " * 40])
        assert (pair.ids.count(7592), pair.ids.count(2088)) == (words, 5)
