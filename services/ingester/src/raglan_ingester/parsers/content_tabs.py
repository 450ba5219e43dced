"""A markdown-it rule for the content tabs of MkDocs: `=== "Linux"` and what is indented below."""

from __future__ import annotations

import re
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

_OPENING: Final = re.compile(r'===[!+]?[ \t]+"[^"\n]+"[ \t]*$')
_INDENT: Final = 4


def content_tabs_plugin(parser: MarkdownIt) -> None:
    """Let `parser` emit `content_tab_open` and `content_tab_close` around the blocks of a tab."""
    parser.block.ruler.before(
        "fence", "content_tab", _content_tab, {"alt": ["paragraph", "reference", "list"]}
    )


def _content_tab(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    begin = state.bMarks[start_line] + state.tShift[start_line]
    if not _OPENING.match(state.src[begin : state.eMarks[start_line]]):
        return False
    if silent:
        return True
    indent = state.sCount[start_line] + _INDENT
    line = start_line + 1
    while line < end_line and (state.isEmpty(line) or state.sCount[line] >= indent):
        line += 1
    opened = state.push("content_tab_open", "div", 1)
    opened.map = [start_line, line]
    kept = state.parentType, state.lineMax, state.blkIndent
    state.parentType, state.lineMax, state.blkIndent = "content_tab", line, indent
    state.md.block.tokenize(state, start_line + 1, line)
    state.push("content_tab_close", "div", -1)
    state.parentType, state.lineMax, state.blkIndent = kept
    state.line = line
    return True
