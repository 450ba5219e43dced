"""Questions are cleaned and read without a model; small talk is told from questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.v1 import generator_pb2
from raglan_gateway.conversation.standalone import standalone_question
from raglan_gateway.understanding.cleaning import clean
from raglan_gateway.understanding.intent import intent_of
from raglan_gateway.understanding.reading import read
from raglan_gateway.understanding.small_talk import reply_to

TESTS = Path(__file__).parents[2]
LABELLED = [json.loads(line) for line in (TESTS / "intents.jsonl").read_text("utf-8").splitlines()]
QUESTIONS = [
    json.loads(line)["question"]
    for name in ("newcomer_questions.jsonl", "conversations.jsonl")
    for line in (TESTS / name).read_text("utf-8").splitlines()
]
LONGEST = 8_000


@pytest.mark.parametrize(
    ("pasted", "expected"),
    [
        ("\u201cHow do I install it?\u201d", "How do I install it?"),
        ("> How do I\n> install it?", "How do I\ninstall it?"),
        ("\x1b[31merror\x1b[0m KX-88213\r\n", "error KX-88213"),
        ("install\u200b \u202ehatch\ufeff", "install hatch"),
        ("a\u00a0b\u2003c", "a b c"),
        ("one\n\n\n\n\ntwo", "one\n\ntwo"),
        ("`hatch build`", "hatch build"),
        ("hidden\U000e0041\U000e0042 tags", "hidden tags"),
    ],
)
def test_what_pasting_adds_is_removed(pasted: str, expected: str) -> None:
    assert clean(pasted) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"a" or "b"',
        ">= 3.9 or later?",
        "def f():\n    return 1",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # a joiner inside a Persian word
        "\U0001f468\u200d\U0001f469",  # and inside an emoji
        "'tis",
    ],
)
def test_what_belongs_to_a_question_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("text", ["\u200b", "\x1b[0m", "\u202e\u202c", "\x00\x07", " \n "])
def test_nothing_is_left_of_what_cannot_be_seen(text: str) -> None:
    assert clean(text) == ""


@given(st.text(max_size=300))
def test_a_clean_text_is_clean(text: str) -> None:
    once = clean(text)
    assert not any(character in once for character in "\x00\x07\x1b\u200b\u202e\ufeff\r")
    assert once == once.strip()


@pytest.mark.parametrize("row", LABELLED, ids=lambda row: row["text"][:40])
def test_labelled_questions_have_their_intent(row: dict[str, str]) -> None:
    assert intent_of(row["text"]) == row["intent"]


@pytest.mark.parametrize("text", [*QUESTIONS, *(row["text"] for row in LABELLED)])
def test_only_small_talk_gets_its_reply(text: str) -> None:
    intents = {row["text"]: row["intent"] for row in LABELLED}
    assert bool(reply_to(text)) == (intents.get(text) == "chit-chat")


@pytest.mark.parametrize(
    "text",
    [
        "hello world", "DAG", "OI", "HI-13", "thanks, how do I install hatch?", "ok", "yes", "no",
        "How are you supposed to install it?", "what can you do about a broken hook", "help", "???",
        "\U0001f600", "hey jude lyrics", "bye-laws", "good", "test", "",
    ],
)  # fmt: skip
def test_words_that_may_be_a_question_are_no_small_talk(text: str) -> None:
    assert reply_to(text) == ""


def test_small_talk_is_answered_in_its_language() -> None:
    assert reply_to("Guten Morgen!").startswith("Hallo!")
    assert reply_to("Merci beaucoup !").startswith("Je vous en prie")
    assert reply_to("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a").startswith(
        "Hello!"
    )


def test_the_last_phrase_decides_the_reply() -> None:
    assert "cite" in reply_to("Hi, who are you?")
    assert reply_to("Thanks a lot, bye!") == reply_to("bye")


def test_thanks_are_no_subject_of_a_follow_up() -> None:
    history = [
        generator_pb2.Turn(role=role, text=text)
        for role, text in (
            (generator_pb2.ROLE_USER, "How do I install hatch on macOS?"),
            (generator_pb2.ROLE_ASSISTANT, "With the pkg file."),
            (generator_pb2.ROLE_USER, "thanks!"),
            (generator_pb2.ROLE_ASSISTANT, "You're welcome!"),
        )
    ]
    assert standalone_question("and on Windows?", history) == "How do I install hatch on Windows?"


def test_reading_a_technical_question() -> None:
    found = read("How do I fix error KX-88213 of os.path.join in hatch 1.9.4 with --no-cache?")
    assert found.intent == "troubleshooting"
    assert found.language == "en"
    assert found.technical_terms == ("KX-88213", "os.path.join", "1.9.4", "--no-cache")
    assert "hatch" in found.keywords
    assert "the" not in found.keywords


@pytest.mark.parametrize("text", ["???", "\U0001f600\U0001f600", "", "..."])
def test_reading_what_has_no_words(text: str) -> None:
    found = read(text)
    assert (found.intent, found.keywords, found.technical_terms) == ("lookup", (), ())


def test_reading_mixed_languages() -> None:
    found = read("Wie setze ich max_batch_tokens in the config.yaml?")
    assert found.technical_terms == ("max_batch_tokens", "config.yaml")


@given(st.text(max_size=2_000))
def test_reading_any_text_is_bounded(text: str) -> None:
    found = read(text)
    assert len(found.keywords) <= 16
    assert len(found.technical_terms) <= 16


@pytest.mark.parametrize("unit", ["a.", "a/", "-", "`", "> ", "\x1b[", "A1", "hi ", "wie ich "])
def test_a_long_repetitive_text_is_read(unit: str) -> None:
    text = (unit * LONGEST)[:LONGEST]
    assert read(clean(text)).intent in {"lookup", "how-to"}
    assert reply_to(text) == ""
