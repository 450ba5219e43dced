"""Reasoning in a model's text: what it is does not depend on how the stream was cut."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.language_model import Text, Thinking
from raglan_generator.thinking import OPENS_AT_END, Revoked, ThinkingParser

PARTS = st.lists(
    st.sampled_from(
        [
            *("<think>", "</think>", "[THINK]", "[/THINK]", "<thinking>", "</thinking>", "<thi"),
            *("a", " ", "\n", "`", "<", "b c", "</", "<|channel|>analysis<|message|>"),
        ]
    ),
    max_size=12,
).map("".join)


def parsed(
    pieces: Iterable[str], *, is_open: bool = False, cut: bool = False
) -> list[tuple[str, str]]:
    """The kinds of pieces in turn, each with its text; what was revoked before is left out."""
    parser, found = ThinkingParser(is_open=is_open), list[tuple[str, str]]()
    for piece in [*(p for text in pieces for p in parser.feed(text)), *parser.flush(cut=cut)]:
        kind, text = type(piece).__name__, "" if isinstance(piece, Revoked) else piece.text
        if isinstance(piece, Revoked):
            found = [("Thinking", "".join(text for _, text in found))] if found else []
        elif found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def thinking(text: str) -> tuple[str, str]:
    return Thinking.__name__, text


def said(text: str) -> tuple[str, str]:
    return Text.__name__, text


@given(PARTS, st.sets(st.integers(0, 120), max_size=12), st.booleans(), st.booleans())
def test_every_cut_of_a_stream_gives_the_same_pieces(
    text: str, cuts: set[int], is_open: bool, cut: bool
) -> None:
    edges = [0, *sorted(place for place in cuts if place < len(text)), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(edges)]
    options = {"is_open": is_open, "cut": cut}
    assert parsed(pieces, **options) == parsed([text], **options)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("<THINK>", "</THINK>"),
        ("<thinking>", "</thinking>"),
        ("[THINK]", "[/THINK]"),
        ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ],
)
def test_the_tags_of_many_models_are_known(opening: str, closing: str) -> None:
    found = [thinking("Hm."), said("Yes.")]
    assert parsed([f"{opening}Hm.{closing}\n\nYes."]) == found
    assert parsed([f"Hm.{closing}\n\nYes."]) == found
    assert parsed([f"Hm.{closing}Yes."], is_open=True) == found
    assert OPENS_AT_END.search(f"<|assistant|>{opening}\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Yes. <think>Hm.</think> No.", [said("Yes. "), thinking("Hm."), said(" No.")]),
        ("Models write `<think>` before.", [said("Models write `<think>` before.")]),
        ("Close it by `</think>`.", [said("Close it by `</think>`.")]),
        ("a < b and <thin", [said("a < b and <thin")]),
        (
            "<think>One </thinking> two.</think>Yes.",
            [thinking("One </thinking> two."), said("Yes.")],
        ),
        ("<think></think>Yes.", [said("Yes.")]),
        ("</think>Yes.", [said("Yes.")]),
        ("<think>Hm.", [thinking("Hm.")]),
    ],
)
def test_tags_in_unusual_places(text: str, found: list[tuple[str, str]]) -> None:
    assert parsed([text]) == found


def test_a_mention_of_a_tag_without_an_end_is_given_back() -> None:
    assert parsed(["Put <think> first."]) == [
        said("Put "),
        thinking(" first."),
        said("<think> first."),
    ]
    assert parsed(["Put <think> fir"], cut=True)[-1] == thinking(" fir")


def test_a_wrong_assumption_costs_nothing_but_the_stream() -> None:
    assert parsed(["Yes."], is_open=True) == [thinking("Yes."), said("Yes.")]
    assert parsed(["<think>Hm.</think>Yes."], is_open=True) == [thinking("Hm."), said("Yes.")]


def test_no_text_takes_long() -> None:
    began = time.process_time()
    for piece in ("<", "<think>", "<thi", "`<think>`", "</think>"):
        parser = ThinkingParser()
        for _ in range(100):
            list(parser.feed(piece * 100))
    assert time.process_time() - began < 2
