"""Rendering of an answer in a terminal and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from raglan_cli.answer_view import AnswerView
from raglan_cli.screen import SafeConsole

ANSWER = """\
To move a colony: [1]

1. Close the hive **at dusk**.
2. Strap it:

   ```sh
   strap --twice

   # and wait
   ```

See [the manual](https://example.org/hives). [2]"""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8[^\x1b]*\x1b\\\\")


def shown(answer: str, *, terminal: bool, size: int = 1) -> str:
    """Return the screen after the answer has streamed in pieces of `size` characters."""
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=terminal, width=60)
    with AnswerView(console) as view:
        for at in range(0, len(answer), size):
            view.feed(answer[at : at + size])
        view.finish()
    return file.getvalue()


def test_in_a_pipe_an_answer_stays_as_it_is() -> None:
    assert shown(ANSWER, terminal=False) == ANSWER + "\n"


@pytest.mark.parametrize("size", [7, 10_000])
def test_in_a_terminal_markdown_is_rendered(size: int) -> None:
    text = _CONTROL.sub("", shown(ANSWER, terminal=True, size=size))
    assert "strap --twice" in text
    assert "To move a colony: [1]" in text
    end = text[text.rindex("1 Close the hive at dusk.") :]
    assert "**" not in end
    assert "```" not in end


def test_the_address_of_a_link_is_printed_and_not_hidden_behind_its_text() -> None:
    screen = shown(ANSWER, terminal=True, size=10_000)
    assert "https://example.org/hives" in screen
    assert "\x1b]8" not in screen


def test_a_document_cannot_steer_the_terminal() -> None:
    screen = shown("red \x1b[31malert\x07", terminal=True)
    assert "\x1b[31m" not in screen
    assert "\x07" not in screen
