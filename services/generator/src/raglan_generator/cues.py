"""What kind of answer an English question asks for, and whether a sentence holds one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from raglan_generator.terms import words

_AMOUNT: Final = re.compile(
    r"\bhow (many|much|long|old|far|large|big|tall|high|often|fast|deep|wide|hot)\b|\bpercent"
    r"|\bnumber of\b|\bwhat (population|age|size|amount|distance|temperature)\b",
    re.IGNORECASE,
)
_TIME: Final = re.compile(
    r"\bwhen\b|\b(what|which) (year|date|day|month|decade|century|time)\b", re.IGNORECASE
)
_NAME: Final = re.compile(
    r"\bwho(m|se)?\b|\bwhere\b"
    r"|\b(what|which) (country|city|state|river|place|location|region|town)\b",
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

_NAMED: Final = re.compile(r"(?<!^)\b[^\W\d_a-z]\w*|\b\w*\d\w*")


def names_of(question: str) -> list[str]:
    """Words of `question` that look like names or numbers; its first only with a digit."""
    return _NAMED.findall(question)


def cue_of(question: str) -> Callable[[str], bool]:
    """Whether a sentence holds the kind of thing that `question` asks for; if unclear, never."""
    if _AMOUNT.search(question):
        return lambda text: bool(_A_NUMBER.search(text))
    if _TIME.search(question):
        return lambda text: bool(_A_TIME.search(text))
    if _NAME.search(question):
        known = frozenset(words(question))
        return lambda text: any(
            match.group().casefold() not in known for match in _A_NAME.finditer(text)
        )
    return lambda text: False


_LIST: Final = re.compile(
    r"\bhow (to|do|does|can|could|should|would|might|must)\b|\b(steps?|ways?|procedure|sequence|instructions?"
    r"|checklist|order|list of|kinds of|types of)\b|\bstep by step\b"
    r"|\b(what|which)( \w+)? (are|do I have to|must I|should I)\b",
    re.IGNORECASE,
)


def asks_for_list(question: str) -> bool:
    """Whether an English question asks for several things or for steps."""
    return bool(_LIST.search(question))
