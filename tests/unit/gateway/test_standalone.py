"""Follow-ups become stand-alone questions; questions that name their subject stay as they are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.v1 import generator_pb2
from raglan_gateway.conversation.standalone import standalone_question

USER, ASSISTANT = generator_pb2.ROLE_USER, generator_pb2.ROLE_ASSISTANT
PORT = "What is the default port of the Raglan gateway?"
INSTALL = "How do I install hatch on macOS?"


def turns(*texts: str) -> list[generator_pb2.Turn]:
    """Questions and answers in turn."""
    return [
        generator_pb2.Turn(role=ASSISTANT if at % 2 else USER, text=text)
        for at, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("before", "follow_up", "expected"),
    [
        (INSTALL, "and on Windows?", "How do I install hatch on Windows?"),
        (INSTALL, "on Windows?", "How do I install hatch on Windows?"),
        (INSTALL, "What about Windows?", "How do I install hatch on macOS, Windows?"),
        (PORT, "how do I change it?", "how do I change it (port, Raglan gateway)?"),
        (PORT, "Why?", "Why (port, Raglan gateway)?"),
        (
            "Wie installiere ich Raglan auf dem Server?",
            "und auf Windows?",
            "Wie installiere ich Raglan auf Windows?",
        ),
        (
            "Comment installer Raglan sur Linux ?",
            "et sur Windows ?",
            "Comment installer Raglan sur Windows?",
        ),
    ],
)
def test_a_follow_up_gets_what_it_leaves_out(before: str, follow_up: str, expected: str) -> None:
    assert standalone_question(follow_up, turns(before, "It is so [1].")) == expected


@pytest.mark.parametrize(
    "question",
    [
        "How do I pin the reranker to a GPU?",
        "Which error code tells me that two decorators share a name?",
        "If a plugin fails, does it stop the server?",
        "Is it possible to keep the tracer on another machine?",
        "in which order does the onUpgrade hook run",
        "What is Kubernetes?",
        "x" * 501,
    ],
)
def test_a_new_subject_takes_nothing_of_the_old_one(question: str) -> None:
    assert standalone_question(question, turns(INSTALL, "Use the pkg file [1].")) == question


def test_names_of_the_answer_are_what_a_pronoun_may_mean() -> None:
    history = turns(
        "How long may a plugin take to load?", "The limit is `pluginTimeout`, 10000 ms [1]."
    )
    assert "pluginTimeout" in standalone_question("how do I change it?", history)


def test_a_chain_of_follow_ups_refers_to_its_first_question() -> None:
    history = turns(PORT, "8080 [1].", "and of the embedder?", "7101 [1].")
    assert "default port" in standalone_question("and of the tracer?", history)


def test_a_chain_after_a_new_subject_forgets_the_old_one() -> None:
    history = turns(PORT, "8080 [1].", INSTALL, "Use the pkg file [1].")
    asked = standalone_question("and on Windows?", history)
    assert asked == "How do I install hatch on Windows?"


def test_without_a_history_or_with_blank_turns_a_question_stays() -> None:
    assert standalone_question("why?", []) == "why?"
    assert standalone_question("why?", turns(" ", "\n")) == "why?"


def test_a_thousand_long_turns_take_milliseconds_and_little_is_carried() -> None:
    history = turns(*(f"word{at} " * 3_000 for at in range(1_000)))
    begun = time.process_time()
    asked = standalone_question("how do I change it?", history)
    assert time.process_time() - begun < 1
    assert len(asked) < 3_000


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=8))
def test_any_text_gives_a_question(question: str, texts: list[str]) -> None:
    asked = standalone_question(question, turns(*texts))
    assert asked.strip() or not question.strip()
