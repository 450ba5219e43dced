"""Answer types: the kind of answer an English question asks for, and units that hold one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from raglan.terms import words

_AMOUNT: Final = re.compile(
    r"\bhow (many|much|long|old|far|large|big|tall|high|often|fast|deep|wide|hot)\b|\bpercent"
    r"|\bnumber of\b|\bwhat (population|age|size|amount|distance|temperature)\b"
    r"|\b(max|maximum|min|minimum|limit|default (size|value|port|timeout))\b",
    re.IGNORECASE,
)
_TIME: Final = re.compile(
    r"^\W*((since|until|till|by) )?when\b|\b(since|until|till) when\b"
    r"|\bwhen (did|do|does|was|were|is|are|will|has|had|have|can)\b"
    r"|\b(what|which) (year|date|day|month|decade|century|time)\b",
    re.IGNORECASE,
)
_NAME: Final = re.compile(
    r"\bwho(m|se)?\b|\bwhere\b"
    r"|\b(what|which) (country|city|state|river|place|location|region|town)\b",
    re.IGNORECASE,
)
_VERSION: Final = re.compile(
    r"\b(what|which|minimum|latest|newest|oldest|required) (\S+ ){0,2}?(version|release)s?\b",
    re.IGNORECASE,
)
_VERSION_OF: Final = re.compile(
    r"\b(what|which|minimum|latest|newest|oldest|required) "
    r"((?P<before>[^\W\d]\S*) versions?\b|versions? of (the )?(?P<after>[^\W\d][\w.+-]*))",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"\b(env|environment) ?var(s|iables?)?\b", re.IGNORECASE)
_CODE: Final = re.compile(r"\b(error|warning|status|exit|result)[ -]codes?\b", re.IGNORECASE)
_SETTING: Final = re.compile(
    r"\b(options?|settings?|flags?|parameters?|arguments?|keys?|propert(y|ies)|fields?|switch"
    r"|hooks?|methods?|functions?)\b",
    re.IGNORECASE,
)
_COMMAND: Final = re.compile(
    r"\b(commands?|cli|command line|shell|terminal|script)\b", re.IGNORECASE
)

_HOW_TO: Final = re.compile(
    r"\bhow (do|can|could|should|must) (i|we|you)\b|\bhow to\b", re.IGNORECASE
)

_YES_NO: Final = re.compile(
    r"(^|[,;:] )\W*(is|are|was|were|does|do|did|can|could|will|would|should|must|may|has|have"
    r"|ok to) (?!there\b|you (know|tell|show|explain)\b)",
    re.IGNORECASE,
)

_A_NUMBER: Final = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand"
    r"|million|billion|half|dozen)\b",
    re.IGNORECASE,
)
_A_TIME: Final = re.compile(
    r"\b(\d{4}|\d{3,4}s|\d+(st|nd|rd|th)|century|centuries|January|February|March|April|May|June"
    r"|July|August|September|October|November|December|(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b"
)
_A_NAME: Final = re.compile(r"(?<!^)\b[^\W\d_a-z]\w+")
_A_VERSION: Final = re.compile(r"\bv?\d+\.\d+|\bv\d+\b|(?<=[a-z] )\d+\b")
_A_VARIABLE: Final = re.compile(r"\b[A-Z][A-Z\d]*_[A-Z\d_]+\b")
_A_CODE: Final = re.compile(r"\b[A-Z][A-Z\d]*_[A-Z\d_]+\b|\b[A-Z]{1,8}-?\d{2,}\b|\b\d{3}\b")
_A_SETTING: Final = re.compile(r"`|(?<!\w)--?[a-z]")
_A_VERDICT: Final = re.compile(
    r"\b(not|cannot|never|no|only|can|may|must|always|fine|possible|allowed|supported|supports)\b"
    r"|n't\b",
    re.IGNORECASE,
)
_A_COMMAND: Final = re.compile(r"```|`[^`\n]* [^`\n]*`|(?m:^\s*\$ )")

_LIST: Final = re.compile(
    r"\bhow (to|do|does|can|could|should|would|might|must)\b"
    r"|\b(steps?|ways?|procedure|sequence|instructions?|checklist|order|(list|kinds|types) of)\b"
    r"|\b(what|which)( \w+)? (are|do I have to|must I|should I)\b",
    re.IGNORECASE,
)

_KINDS: Final = (
    (_VERSION, _A_VERSION),
    (_AMOUNT, _A_NUMBER),
    (_TIME, _A_TIME),
    (_VARIABLE, _A_VARIABLE),
    (_CODE, _A_CODE),
    (_COMMAND, _A_COMMAND),
    (_SETTING, _A_SETTING),
    (_HOW_TO, _A_SETTING),
    (_YES_NO, _A_VERDICT),
)
"""Question patterns, the most specific first, each with the pattern of its answers."""


def version_of(question: str) -> str:
    """Return the name whose version `question` asks for; empty where it asks for none.

    "Python" in "What Python version do I need?".
    """
    match = _VERSION_OF.search(question)
    return (match["before"] or match["after"] or "") if match else ""


def holds_version(text: str, name: str) -> bool:
    """Return whether `text` gives a version of `name`: "Python 3.11", "python-version: 3.11"."""
    version = rf"{re.escape(name)}(\W{{1,12}}versions?)?[^\w\n]{{1,12}}v?\d"
    return re.search(version, text, re.IGNORECASE) is not None


def cue_of(question: str) -> Callable[[str], bool] | None:
    """Return a test for texts that hold the kind of answer `question` asks for; None if unclear."""
    if name := version_of(question):
        return lambda text: holds_version(text, name)
    for asks, answers in _KINDS:
        if asks.search(question):
            return lambda text: bool(answers.search(text))
    if _NAME.search(question):
        known = frozenset(words(question))
        return lambda text: any(
            not known.issuperset(words(match.group())) for match in _A_NAME.finditer(text)
        )
    return None


def asks_for_list(question: str) -> bool:
    """Return whether an English question asks for several things or for steps."""
    return bool(_LIST.search(question))
