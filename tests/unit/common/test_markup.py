"""Text without its markup, as models read it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan import markup
from raglan.markup import blank_markup


def read(text: str) -> str:
    """Return the rest, without the blanks."""
    return " ".join(blank_markup(text).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See [the guide](https://example.org/a_(b)?c=d) now", "See the guide now"),
        ('![logo](img.png "The logo") Raglan', "logo Raglan"),
        ("a [link][ref] and [1] and x[2]", "a link and [1] and x[2]"),
        ("| a | **b** |\n|---|:-:|\n| `c` | |", "a b c"),
        ("## Use `it`\n\n```sh title=x\nrun --now\n```", "Use it run --now"),
        ('<h1 align="center">Fastify</h1> if a < b and c > d', "Fastify if a < b and c > d"),
        ("p < 0.05 and q > 3 * 2 ** x", "p < 0.05 and q > 3 * 2 x"),
        ("snake_case_name, __init__.py and 5 - 3", "snake_case_name, init .py and 5 - 3"),
        ("Nothing to take out.", "Nothing to take out."),
        ("<hr>", "<hr>"),
    ],
)
def test_markup_is_blanked_and_words_stay(text: str, expected: str) -> None:
    assert read(text) == expected


@given(st.text(alphabet='ab[]()!|`*_#<>/-\n "\\', max_size=80))
def test_every_character_that_is_left_keeps_its_offset(text: str) -> None:
    blanked = blank_markup(text)
    assert len(blanked) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, blanked, strict=True))


def test_a_long_line_of_brackets_takes_no_time() -> None:
    assert len(blank_markup("[(" * 200_000 + "<a " * 100_000)) == 700_000


@given(st.text(alphabet='ab[]()!|`~*_#<>/:-\n "\\', max_size=40))
def test_text_that_is_not_searched_has_no_markup(text: str) -> None:
    if markup._MAY_BE_MARKUP.search(text) is None:
        assert markup._MARKUP.search(text) is None


_PLAIN = re.compile(
    r"""
      !?\[(?P<shown>[^\[\]\n]*)\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s+"[^"\n]*")?\)
                                   |\[[^\[\]\n]*\])
    | </?(?:"""
    + markup._HTML_TAGS
    + r""")\b[^<>]*> | <!--.*?-->
    | ^[ \t>]*(?:```|~~~)[^`\n]*$
    | ^[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*$
    | ^[ \t>]*\#{1,6}(?=[ \t])
    | \*{2,3} | __ | `+ | (?<!\\)\|
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""The same markup in its readable form, which takes four times as long."""


def _plainly_blanked(match: re.Match[str]) -> str:
    start, end = match.span("shown")
    return "".join(
        each if start <= offset < end or (each == "\n" and start < 0) else " "
        for offset, each in enumerate(match.group(), match.start())
    )


@given(
    st.lists(st.sampled_from([*'ab[]()!|`~*_#<>/:- \n\t"\\', "```", "<b", "<!--", "-->", "|-|"]))
)
def test_same_markup_as_by_the_readable_pattern(parts: list[str]) -> None:
    text = "".join(parts)
    expected = _PLAIN.sub(_plainly_blanked, text)
    assert blank_markup(text) == (text if expected.isspace() else expected)
