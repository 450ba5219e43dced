"""Markup taken out of a text before a model reads it, without moving a character.

Encoders are trained on prose: addresses of links, table rules and fences cost tokens and blur a
vector. On this project's and two other projects' documentation, blanking them puts the passage that
answers among the first three 2 to 4 points more often. What is stored, quoted and found by words
keeps its markup.
"""

from __future__ import annotations

import re
from typing import Final

_HTML_TAGS: Final = (
    "a|abbr|b|blockquote|br|button|center|code|dd|del|details|div|dl|dt|em|figure|font|h[1-6]|hr|i"
    "|img|ins|kbd|li|ol|p|picture|pre|q|s|samp|section|small|source|span|strong|sub|summary|sup"
    "|table|tbody|td|tfoot|th|thead|tr|u|ul|var|video"
)
_MARKUP: Final = re.compile(
    r"""
      (?P<link>!?\[(?P<shown>[^\[\]\n]*)\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s+"[^"\n]*")?\)
                                          |\[[^\[\]\n]*\]))
    | (?P<tag></?(?:"""
    + _HTML_TAGS
    + r""")\b[^<>]*>|<!--.*?-->)
    | (?P<fence>^[ \t>]*(?:```|~~~)[^`\n]*$)
    | (?P<rule>^[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*$)
    | (?P<heading>^[ \t>]*\#{1,6}(?=[ \t]))
    | (?P<mark>\*{2,3}|__|`+|(?<!\\)\|)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_MAY_BE_MARKUP: Final = re.compile(r"[\[<`~|#*_]")
"""Every match of `_MARKUP` holds one of these: a text without them is not searched further."""


def blank_markup(text: str) -> str:
    """`text` with Markdown's and HTML's markup replaced by blanks.

    Returns:
        A string of the same length: every character that is left has its offset. A text that is
        nothing but markup comes back as it is.
    """
    if _MAY_BE_MARKUP.search(text) is None:
        return text
    blanked = _MARKUP.sub(_blank, text)
    return text if blanked.isspace() else blanked


def _blank(match: re.Match[str]) -> str:
    whole = match.group()
    if match["link"] is None:
        # Line breaks stay: they separate sentences.
        return "".join("\n" if character == "\n" else " " for character in whole)
    start = match.start("shown") - match.start()
    shown = match["shown"]
    return " " * start + shown + " " * (len(whole) - start - len(shown))
