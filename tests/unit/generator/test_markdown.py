"""Text of documents as inline Markdown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from raglan_generator import markdown

_TEXT = st.text(alphabet="ab1.!|`*_#<>/:-[](){}^\x00 \n", max_size=40)


@given(_TEXT)
def test_text_that_is_not_searched_has_no_markup(text: str) -> None:
    if markdown._MAY_BE_MARKUP.search(text) is None:
        patterns = (
            markdown._QUOTE_MARK,
            markdown._CODE,
            markdown._IMAGE,
            markdown._LINK,
            markdown._TAG,
            markdown._COMMENT,
            markdown._ATTRIBUTES,
            markdown._NUMBERS,
            markdown._KEPT,
        )
        assert not any(pattern.search(text) for pattern in patterns)


@given(_TEXT)
def test_open_marks_are_found_as_by_the_patterns_alone(text: str) -> None:
    without = markdown._CODE.sub("", text)
    is_open = "`" in without or len(markdown._EMPHASIS.findall(without)) % 2 == 1
    assert markdown.is_open(text) is is_open
