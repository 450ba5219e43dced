"""Supported claims, and sentences that make no claim."""

from __future__ import annotations

import pytest
from raglan.grounding import is_supported, makes_claim


@pytest.mark.parametrize(
    ("lexical", "cosine", "conflict", "supported"),
    [
        (0.5, None, "", True),
        (0.4, 0.65, "", True),
        (0.4, 0.6, "", False),
        (1.0, 1.0, "number", False),
    ],
)
def test_words_or_meaning_support_unless_there_is_a_conflict(
    lexical: float, cosine: float | None, conflict: str, supported: bool
) -> None:
    assert is_supported(lexical, cosine, conflict) is supported


@pytest.mark.parametrize(
    "sentence",
    ["Yes.", "Ja!", "\u662f\u7684\u3002", "You need the following:", "**Steps:**", "## Refunds",
     "**Refunds**", "|---|:-:|", "---", " "],
)  # fmt: skip
def test_what_states_nothing_is_no_claim(sentence: str) -> None:
    assert not makes_claim(sentence)


@pytest.mark.parametrize(
    "sentence", ["Paris.", "- 42", "Yes, within 30 days.", "**Note** it is free."]
)
def test_what_states_something_is_a_claim(sentence: str) -> None:
    assert makes_claim(sentence)
