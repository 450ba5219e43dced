"""Reading of a question: its language, intent, keywords and technical terms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from raglan.language import detect
from raglan.terms import identifiers, is_stop_word

from raglan_gateway.understanding.intent import Intent, intent_of

_READ_CHARS: Final = 1_000
"""Beginning of a question that is read."""
_MOST: Final = 16
"""Keywords, and technical terms."""

_WORD: Final = re.compile(r"[^\s?!,;:()\[\]{}\"\u201c\u201d\u00ab\u00bb\u00bf\u00a1]+")
_EDGES: Final = ".'`*_\u2026<>"

_LONGEST: Final = 120
"""Characters of a technical term."""
_TECHNICAL: Final = re.compile(
    r"--[a-z][\w-]*"  # --no-cache
    r"|0x[0-9a-f]{2,}"
    r"|v?\d+(?:\.\d+){1,3}(?:[-+.]?(?:rc|alpha|beta|dev|post|a|b)\.?\d*)?"
    r"|[\w./\\~-]*\w\.(?:py|toml|json|ya?ml|md|txt|cfg|ini|sh|jsx?|tsx?|html|css|log|exe|dll|conf"
    r"|xml|csv|sql|lock|whl|zip|gz)"
    r"|[a-z_]\w+(?:\.[a-z_]\w+)+",  # os.path.join
    re.IGNORECASE,
)
"""Flags, versions, files and dotted names; names such as `KX-88213` or `max_batch_tokens` are found
by `raglan.terms.identifiers`."""
_CODE_OR_NUMBER: Final = re.compile(
    r"`([^`\n]{1,80})`|\b((?:HTTP|errno|exit code|status|error)[ :#]{1,2}\d{2,6})\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Language, intent, keywords and terms of a question."""

    intent: Intent
    language: str
    """ISO 639-1; empty where it is uncertain."""
    keywords: tuple[str, ...]
    """Words that carry meaning, as they are written."""
    technical_terms: tuple[str, ...]
    """Identifiers, versions, files, flags and error codes."""


def read(text: str) -> Reading:
    """Return what can be told of a question, cleaned and stand-alone."""
    text = text[:_READ_CHARS]
    language = detect(text)
    return Reading(intent_of(text), language, _keywords(text, language), _technical_terms(text))


def _keywords(text: str, language: str) -> tuple[str, ...]:
    words: dict[str, str] = {}
    for match in _WORD.finditer(text):
        word = match.group().strip(_EDGES)
        bare = word.casefold()
        if any(map(str.isalnum, word)) and not is_stop_word(bare, language or "en"):
            words.setdefault(bare, word)
            if len(words) == _MOST:
                break
    return tuple(words.values())


def _technical_terms(text: str) -> tuple[str, ...]:
    found = [
        (match.start(), match[1] or match[2] or "") for match in _CODE_OR_NUMBER.finditer(text)
    ]
    for match in _WORD.finditer(text):
        word = match.group().strip(_EDGES)
        if len(word) <= _LONGEST and _TECHNICAL.fullmatch(word):
            found.append((match.start(), word))
    known = " ".join(term for _, term in found)
    found += [(text.find(name), name) for name in identifiers(text) if name not in known]
    return tuple(dict.fromkeys(term for _, term in sorted(found)))[:_MOST]
