"""Foreign text made harmless for a prompt: it cannot close its tag, open a turn or give a role.

Words stay as they are, so that a model quotes what the document says. Quotes that a reader sees
come from the document itself, never from here.
"""

from __future__ import annotations

import re
from typing import Final

_LESS: Final = "<\uff1c"
_BAR: Final = "|\uff5c"

_CONTROL: Final = re.compile(
    rf"""
    [{_LESS}](?=
        [{_BAR}]                                          # <|im_start|>, <|eot_id|>
      | [{_LESS}]/?SYS                                    # <<SYS>>
      | [ ]{{0,4}}/?[ ]{{0,4}}passage                          # the prompt's own
      | /?(?: s | bos | eos | pad | unk | mask
            | start_of_turn | end_of_turn | turn
            | system | user | assistant | human
            | think | tool_call | tool_response | tools )[ ]{{0,4}}>
    )
  | \[(?=/?(?: INST | SYS | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS
             | TOOL_CONTENT | THINK )\])
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""The first character of what chat templates write between turns: ChatML, Llama 2 and 3, Mistral,
Gemma, Phi, DeepSeek."""

_ROLE_LINE: Final = re.compile(
    r"""
    ^(?=[ \t]*(?:
        \#{1,6}[ \t]*(?: system | user | human | assistant | instructions? | input | response )\b
      | \**(?: system | user | human | assistant | instructions? | ai | question | answer )
        (?:[ \t]+(?: prompt | message ))?\**[ \t]*[:\uff1a]
    ))
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""Where a line begins that reads like a turn: "System:", "### Instruction"."""

_LINE_BREAKS: Final = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")


def defused(text: str) -> str:
    """`text` without control tokens, its role lines marked as quoted.

    The first character of a control token becomes `&lt;` or `(`; a line that begins like a turn
    is set behind `> `. Other text stays, except that all line breaks become newlines.
    """
    text = _LINE_BREAKS.sub("\n", text)
    text = _CONTROL.sub(lambda match: "(" if match.group() == "[" else "&lt;", text)
    return _ROLE_LINE.sub("> ", text)


def in_one_line(text: str) -> str:
    """`text` for an attribute between double quotes."""
    return defused(" ".join(text.split())).replace('"', "'")
