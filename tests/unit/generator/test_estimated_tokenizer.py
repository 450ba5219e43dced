"""Counting for a server that keeps its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import InvalidInput
from raglan.token_estimate import estimate_tokens
from raglan_generator.estimated_tokenizer import EstimatedTokenizer, FileTokenizer
from raglan_generator.language_model import Message
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

MESSAGES = (Message(role="system", content="Be brief."), Message(role="user", content="Why?"))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["Be brief. Why?"] * 3, trainer)
    bpe.enable_truncation(4)
    bpe.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


# What a tokenizer of 32,000 tokens (Mistral 7B v0.1) makes of them.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The tower was finished in 1889 and stands 330 metres high.", 19),
        ("北京大学位于中国首都北京市海淀区,创办于一八九八年。", 29),
        ('{"ours": 0.9312, "peer": 12.75, "met": true}', 26),
        ("Die Bundesrechtsanwaltskammer veröffentlichte die Bedingungen.", 18),
    ],
)
def test_an_estimate_is_no_smaller_than_the_count(text: str, tokens: int) -> None:
    assert tokens <= EstimatedTokenizer(4096).count(text) <= 2 * tokens


def test_an_estimated_conversation_leaves_room_for_the_template() -> None:
    estimate = EstimatedTokenizer(4096)
    rendered = estimate.render(MESSAGES)
    assert rendered.tokens >= sum(estimate.count(m["content"]) for m in MESSAGES) + 50
    assert rendered.token_ids is None
    assert estimate.max_model_len == 4096


def test_a_file_counts_exactly_and_without_the_limit_that_it_names(tokenizer: Path) -> None:
    counted = FileTokenizer(tokenizer, 4096)
    assert counted.count("Why?" * 10) == 10 * counted.count("Why?") > 4
    assert counted.render(MESSAGES).tokens >= counted.count("Be brief.") + 1 + 50


def test_a_folder_and_its_file_are_the_same(tokenizer: Path) -> None:
    assert FileTokenizer(tokenizer / "tokenizer.json", 64).count("Why") == (
        FileTokenizer(str(tokenizer), 64).count("Why")
    )


@pytest.mark.parametrize("content", [None, "no json", "{}"])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"tokenizer\.json"):
        FileTokenizer(tmp_path, 4096)


@given(st.text(alphabet="abcXYZ019 ,.{}_\n\t", max_size=60))
def test_ascii_is_counted_as_any_other_text(text: str) -> None:
    assert estimate_tokens(f"{text}北") == estimate_tokens(text) + estimate_tokens("北")
