"""Reasoning by vLLM's own parsers: what of an answer's deltas is none of its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from raglan.errors import InvalidInput
from raglan_generator.engines.vllm_engine import Reasoning
from transformers import AutoTokenizer


@pytest.fixture
def tokenizer(model_folder: Path) -> Any:
    """The tiny model's, with the tokens of models that reason."""
    found = AutoTokenizer.from_pretrained(model_folder)
    found.add_tokens(["<think>", "</think>"])
    return found


def read(reasoning: Reasoning, tokenizer: Any, prompt: str, answer: str) -> tuple[str, str]:
    """Reasoning and text of `answer`, given token by token."""
    ids: Sequence[int] = tokenizer.encode(answer, add_special_tokens=False)
    split = reasoning.splitter(tokenizer.encode(prompt, add_special_tokens=False))
    pieces = [
        split(tokenizer.decode([each]), [each], number == len(ids))
        for number, each in enumerate(ids, 1)
    ]
    return "".join(piece[0] for piece in pieces), "".join(piece[1] for piece in pieces)


@pytest.mark.parametrize(
    ("prompt", "answer", "thinking", "text"),
    [
        ("Ask.", "<think>Hm.</think>Yes.", "Hm.", "Yes."),
        ("Ask.<think>", "Hm.</think>Yes.", "Hm.", "Yes."),
        ("Ask.<think></think>", "Yes.", "", "Yes."),
    ],
)
def test_a_parser_of_vllm_tells_reasoning_from_the_answer(
    tokenizer: Any, prompt: str, answer: str, thinking: str, text: str
) -> None:
    reasoning = Reasoning("qwen3", tokenizer)
    assert read(reasoning, tokenizer, prompt, answer) == (thinking, text)


def test_an_unknown_parser_is_refused_by_its_setting(tokenizer: Any) -> None:
    with pytest.raises(InvalidInput, match="RAGLAN_GENERATOR_REASONING_PARSER is 'nothing'"):
        Reasoning("nothing", tokenizer)
