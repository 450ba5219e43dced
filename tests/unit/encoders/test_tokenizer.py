"""Tokenising from several threads, and cutting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from raglan.encoders import model as models
from raglan.encoders.tokenizer import Tokenizers


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
