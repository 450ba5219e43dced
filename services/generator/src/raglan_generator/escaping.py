"""Foreign text made harmless for a prompt: it cannot close its tag, open a turn or give a role.

Words stay as they are, so that a model quotes what the document says. Quotes that a reader sees
come from the document itself, never from here.
"""

from __future__ import annotations

import re
from typing import Final

_GAP: Final = r"\s{0,8}"

_CONTROL: Final = re.compile(
    rf"""
    <(?=
        \|                                                # <|im_start|>, <|eot_id|>
      | <{_GAP}/?SYS                                      # <<SYS>>
      | {_GAP}/?{_GAP}passage                             # the prompt's own
      | [a-z_]{{1,24}}\|{_GAP}>                            # <turn|>
      | {_GAP}/?{_GAP}(?:
            s | im_(?:start|end|sep) | seed:\w{{1,20}}
          | (?:bos|eos|pad|unk|mask|sep|cls|eod|eom|eop|eot|sop)(?:_token)?
          | (?:start|begin|end)_of_\w{{1,24}} | (?:extra_id|unused|reserved)_?\d{{1,6}}
          | turn | role | system | system_prompt | user | assistant | human | bot | ai
          | think | thinking | thought | reasoning
          | tools | tool_calls? | tool_responses?
        ){_GAP}>
    )
  | \[(?=
        \|                                                # [|user|]
      | e~\[
      | {_GAP}/?{_GAP}(?: INST | SYS | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS
             | TOOL_CONTENT | THINK | gMASK | BOS | EOS ){_GAP}\]
    )
  | \](?=~!?b[\[\]])                                     # ]~b]
  | \u25c1(?=/?think\u25b7)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""The first character of what chat templates write between turns: ChatML, Llama 2 to 4, Mistral,
Gemma, Phi, DeepSeek, Qwen, GLM, EXAONE, MiniMax, Seed, Ling, T5."""

_HARMLESS: Final = {"[": "(", "]": ")"}

_SAME_SIZE: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Full-width letters and marks as their usual forms, which models read them as."""

_INVISIBLE: Final = re.compile(
    "[\u00ad\u200b\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""Characters that a reader does not see and a model does; joiners, which scripts need, stay."""

_ROLE_LINE: Final = re.compile(
    r"""
    ^(?=[ \t]*(?:
        \#{1,6}[ \t]*(?: system | user | human | assistant | instructions? | input | response )\b
      | \**(?: system | user | human | assistant | instructions? | ai | bot | question | answer )
        (?:[ \t]+(?: prompt | message ))?\**[ \t]*[:\uff1a]
    ))
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""The beginning of a line that reads like a turn: "System:", "### Instruction"."""

_LINE_BREAKS: Final = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")


def escape_untrusted(text: str) -> str:
    """`text` without control tokens, its role lines marked as quoted.

    The first character of a control token becomes `&lt;` or a parenthesis; a line that begins like
    a turn is set behind `> `; invisible characters are left out. Other text stays, except that all
    line breaks become newlines.
    """
    text = _LINE_BREAKS.sub("\n", _INVISIBLE.sub("", text))
    pieces, at = [], 0
    for match in _CONTROL.finditer(text.translate(_SAME_SIZE)):
        pieces += [text[at : match.start()], _HARMLESS.get(match.group(), "&lt;")]
        at = match.end()
    return _ROLE_LINE.sub("> ", "".join(pieces) + text[at:])


def in_one_line(text: str) -> str:
    """`text` for an attribute between double quotes."""
    return escape_untrusted(" ".join(text.split())).replace('"', "'")
