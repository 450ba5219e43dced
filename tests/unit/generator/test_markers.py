"""The marker parser: what it finds does not depend on how the stream was cut."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.markers import Marker, MarkerParser

TEXT = st.one_of(
    st.text(alphabet=st.sampled_from("a .[]12,;\n"), max_size=60),
    st.lists(
        st.sampled_from(
            [
                *(
                    "[1]",
                    "[2, 3]",
                    " [1-3]",
                    "[^1]",
                    "[[1]]",
                    "\u30101\u2020source\u3011",
                    " (1)",
                    "(2)",
                ),
                *(
                    "`",
                    "``",
                    "```",
                    "~~~",
                    "\n",
                    "\n\n",
                    " ",
                    ".",
                    " = ",
                    "argv",
                    "x",
                    "Paris",
                    "[0]",
                ),
                *("[Source 1]", "[ID:2]", "[", "(", "]", "1", "[2024]", "f(x)", "=", "\\"),
            ]
        ),
        max_size=20,
    ).map("".join),
)


def parsed(pieces: Iterable[str], passages: int = 999, **options: Any) -> list[str | Marker]:
    parser, found = MarkerParser(passages, **options), list[str | Marker]()
    for piece in pieces:
        found += parser.feed(piece)
    found += parser.flush()
    joined: list[str | Marker] = []
    for item in found:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item
        elif item:
            joined.append(item)
    return joined


@given(TEXT, st.lists(st.integers(1, 5), max_size=60))
def test_every_cut_of_a_stream_gives_the_same_pieces(text: str, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    assert parsed(pieces) == parsed([text])


@given(TEXT)
def test_little_is_held_back(text: str) -> None:
    parser, passed = MarkerParser(), 0
    for size, character in enumerate(text.replace("`", ""), 1):
        for piece in parser.feed(character):
            passed += len(piece) if isinstance(piece, str) else 64
        assert size - passed <= 64


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Blue [1].", ["Blue", Marker((1,), " "), "."]),
        ("Blue.[1][12]", ["Blue.", Marker((1,)), Marker((12,))]),
        ("Blue [1, 2; 3]", ["Blue", Marker((1, 2, 3), " ")]),
        ("a[i] and [x]", ["a[i] and [x]"]),
        ("[12345]", ["[12345]"]),
        ("open [1", ["open [1"]),
    ],
)
def test_markers_are_told_from_other_brackets(text: str, pieces: list[str | Marker]) -> None:
    assert parsed([text]) == pieces


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Blue \u30101\u3011.", [(1,)]),
        ("Blue\u30101\u2020source\u3011\u30102:0\u2020L1-L5\u3011.", [(1,), (2,)]),
        ("Blue [^1]. Red[^2].", [(1,), (2,)]),
        ("Blue [[2]].", [(2,)]),
        ("Blue (1). Red (2, 3)!\nGreen (1)", [(1,), (2, 3), (1,)]),
        ("Blue. (2)\nRed.", [(2,)]),
        ("Blue [1-3]. Red [2\u20133].", [(1, 2, 3), (2, 3)]),
        ("Blue [1,2][3] and [1 and 3].", [(1, 2), (3,), (1, 3)]),
        (
            "Blue [ID:1], [Source 2], [source: 1], [doc 2], [Passage 3].",
            [(1,), (2,), (1,), (2,), (3,)],
        ),
        ("Blue [Sources 1, 2]. Red (Source 3). Blau [Quelle 1].", [(1, 2), (3,), (1,)]),
        ("It ended in 1931[1]. The euro[2]; the GPU[3]!", [(1,), (2,), (3,)]),
        ("Paris[1][2].", [(1,), (2,)]),
        ("The list: [1].", [(1,)]),
        ("It is **bold** [1] | [2]", [(1,), (2,)]),
        ("`a` blue [1] `b` red [2]", [(1,), (2,)]),
        ("A stray ` here [1].\nNext [2].", [(1,), (2,)]),
        ("```\nx[1]\n```\nBlue [1].", [(1,)]),
        ("\u4e1c\u4eac[1]\u3002", [(1,)]),
    ],
)
def test_a_marker_is_understood_in_each_form_that_models_write(
    text: str, numbers: list[tuple[int, ...]]
) -> None:
    found = [each.numbers for each in parsed([text], passages=3) if isinstance(each, Marker)]
    assert found == numbers


@pytest.mark.parametrize(
    "text",
    [
        "Use `argv[1]` and ``x[2] `` here.",
        "```python\nargv[1]\nx = y [2]\n```",
        "~~~\n[1]\n~~~",
        "```\nnever closed [1]",
        "Set x[2] = y[0].",
        "argv[1] is the name.",
        "Take M[1, 2] or matrix[1] and self.rows[2].",
        "my_list[1], myList[2], x1[3].",
        "value[2] += 1",
        "total[1]++",
        "a[1][2]",
        "xs = [1, 2]",
        "f(x)[1]",
        "In [0, 1] or [2024] or [12345].",
        "\\[1\\] and [x] and [TODO 1]",
        "(1) First, (2) second.",
        "1. One\n(2) Two",
        "See figure (1). Thirty (30) days; one (1). Step (2).",
        "In f(1). In (4). In (a).",
        "either (1) this or (2) that",
    ],
)
def test_what_is_no_citation_is_left_alone(text: str) -> None:
    assert "".join(map(str, parsed([text], passages=3))) == text


def test_a_name_with_subscripts_in_the_source_has_them_in_the_answer() -> None:
    def in_source(text: str) -> bool:
        return text in "Read gauges[1] first."

    text = "The gauges[1]. The pressure[2]."
    assert parsed([text], passages=3, in_source=in_source) == [
        "The gauges[1]. The pressure",
        Marker((2,)),
        ".",
    ]


def test_a_long_answer_takes_no_time() -> None:
    began = time.process_time()
    for piece in ("[1", "(1", "`", "` ", "[", "~", "x[1]", " (1)."):
        parser = MarkerParser(3)
        for _ in range(100):
            parser.feed(piece * 100)
        parser.flush()
    assert time.process_time() - began < 2
