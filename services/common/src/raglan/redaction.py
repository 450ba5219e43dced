"""What never leaves the process in a log: secrets and content, by the name they stand under.

Names are the sure way, and texts are searched besides: messages of exceptions and lines of foreign
libraries hold URLs with credentials, headers, and what a user sent. In a text, a secret is found
by its form (`password=...`, `Bearer ...`) or because the process was told it; a passage that
somebody writes into a sentence is not, so nobody does.
"""

from __future__ import annotations

import enum
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from functools import lru_cache
from itertools import pairwise
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

REDACTED: Final = "[redacted]"

SECRET_WORDS: Final = frozenset(
    {
        *("apikey", "authorization", "bearer", "cookie", "cookies", "credential", "credentials"),
        *("dsn", "jwt", "passphrase", "passwd", "password", "pwd", "secret", "secrets"),
    }
)
"""A name with one of these among its words holds a secret, whatever its value."""

SECRET_NAMES: Final = frozenset({"broker_url", "connection_string", "database_url", "redis_url"})

CONTENT_WORDS: Final = frozenset(
    {
        *("answer", "answers", "body", "chunk", "chunks", "completion", "completions", "content"),
        *("contents", "documents", "embedding", "embeddings", "filter", "history", "messages"),
        *("passage", "passages", "payload", "prompt", "prompts", "queries", "query", "question"),
        *("questions", "quote", "quotes", "snippet", "text", "texts", "title", "tokens", "vector"),
        "vectors",
    }
)
"""A name with one of these holds content; numbers under it are counts, which are shown."""

_ABOUT: Final = frozenset(
    {"bytes", "chars", "count", "hash", "id", "ids", "length", "limit", "ms", "s", "type"}
)
"""Last words of names that tell something about content without being it."""

_KEY_OF: Final = frozenset({"access", "api", "encryption", "private", "secret", "signing", "ssh"})
_TOKEN_OF: Final = frozenset({"each", "first", "last", "next", "per"})
"""Of which a token is one of a text."""

_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 100
_MAX_CHARS: Final = 8_192
_LOOKED_AT: Final = 65_536
_SHORT: Final = 96
_FEWEST: Final = 6

_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SUSPECT: Final = re.compile(
    r"://|bearer|basic|authorization|cookie|key|passw|pwd|passphrase|secret|token|credential"
    r"|sk-|hf_|eyJ|input_value",
    re.IGNORECASE,
)
_LINE: Final = re.compile(
    r"((?:authorization|cookie)[\"']?\s{0,3}[:=]\s{0,3})(?![\"'\s])[^\r\n]+", re.IGNORECASE
)
_PAIR: Final = re.compile(
    r"((?:authorization|cookie|(?:api|access|private|secret|signing)[ _-]?key|passwo?r?d|pwd"
    r"|passphrase|secret|token(?!s)|credential)"
    r"[\w -]{0,30}[\"']?\s{0,3}(?:[:=]|(?<=[\"']),)\s{0,3})"
    r"(?:b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'|\S+)",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\b(bearer|basic)(\s{1,3})[^\s,;\"']+", re.IGNORECASE)
_SHAPE: Final = re.compile(r"\b(?:sk-|hf_|eyJ)[\w.-]{8,}")
# What pydantic was given, which is what a user sent.
_GIVEN: Final = re.compile(r"(input_value=)[^\r\n]*")
_PIECE: Final = re.compile(r"\S+")

_told: tuple[str, ...] = ()


class _Kind(enum.Enum):
    PLAIN = 0
    CONTENT = 1
    SECRET = 2


def hide(secrets: Iterable[str]) -> None:
    """From now on no text shows these, nor the password of one that is a URL.

    Those under six characters are left out: they stand in too many words.
    """
    global _told
    known = set(_told)
    for secret in secrets:
        user, at, _ = secret.partition("://")[2].rpartition("@")
        known |= {secret, user.partition(":")[2]} if at else {secret}
    # The longest first: one may hold another.
    _told = tuple(sorted((each for each in known if len(each) >= _FEWEST), key=len, reverse=True))
    _short_text.cache_clear()


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` as JSON can hold them, without secrets and content."""
    return {name: under(name, value) for name, value in fields.items()}


def under(name: str, value: Any, depth: int = 0) -> Any:
    """What may be shown of `value`, which stands under `name`."""
    kind = _kind(name)
    if kind is _Kind.PLAIN or value is None:
        return shown(value, depth)
    if kind is _Kind.CONTENT and isinstance(value, numbers.Number):
        return shown(value, depth)
    return REDACTED


def shown(value: Any, depth: int = 0) -> Any:
    """What may be shown of `value`, as JSON can hold it.

    What is none of JSON's types is shown by the name of its type: its text could hold anything.
    """
    kind = type(value)
    if kind is str:
        return text(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if depth > _MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MAX_ITEMS]
        return {text(str(name)): under(str(name), each, depth + 1) for name, each in items}
    if isinstance(value, list | tuple | set | frozenset):
        return _sequence(list(value)[:_MAX_ITEMS], depth)
    return _scalar(value)


def text(value: str) -> str:
    """`value` without secrets that have their form, or were told to `hide`, and not too long."""
    return _short_text(value) if len(value) <= _SHORT else _searched(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return text(str(value.value))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, str | PurePath | UUID | date | BaseException):
        with suppress(Exception):
            return text(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    return f"[{type(value).__name__}]"


def _sequence(items: list[Any], depth: int) -> list[Any]:
    """Each item; of a pair, as headers come in, the second by the name that is the first."""
    if len(items) == 2 and isinstance(name := items[0], str | bytes):
        named = name.decode("latin-1") if isinstance(name, bytes) else name
        if _kind(named) is not _Kind.PLAIN:
            return [text(named), under(named, items[1], depth + 1)]
    return [shown(each, depth + 1) for each in items]


@lru_cache(2_048)
def _kind(name: str) -> _Kind:
    words = [word.lower() for word in _WORDS.findall(name[:200])]
    if not words:
        return _Kind.PLAIN
    before = words[-2] if len(words) > 1 else ""
    named = "_".join(words)
    keys = any(a in _KEY_OF and b in ("key", "keys") for a, b in pairwise(words))
    token = words[-1] == "token" and before not in _TOKEN_OF
    if keys or token or named in SECRET_NAMES or not SECRET_WORDS.isdisjoint(words):
        return _Kind.SECRET
    if words[-1] not in _ABOUT and not CONTENT_WORDS.isdisjoint(words):
        return _Kind.CONTENT
    return _Kind.PLAIN


@lru_cache(4_096)
def _short_text(value: str) -> str:
    return _searched(value)


def _searched(value: str) -> str:
    """Each search is linear in the length of `value`, whatever it holds."""
    value = value[:_LOOKED_AT]
    for secret in _told:
        value = value.replace(secret, REDACTED)
    if _SUSPECT.search(value):
        if "@" in value and "://" in value:
            value = _PIECE.sub(_without_credentials, value)
        value = _LINE.sub(rf"\1{REDACTED}", value)
        value = _PAIR.sub(rf"\1{REDACTED}", value)
        value = _SCHEME.sub(rf"\1\2{REDACTED}", value)
        value = _SHAPE.sub(REDACTED, value)
        value = _GIVEN.sub(rf"\1{REDACTED}", value)
    return value if len(value) <= _MAX_CHARS else f"{value[:_MAX_CHARS]}..."


def _without_credentials(piece: re.Match[str]) -> str:
    """Up to the last @: a password may hold one, or a slash, that nobody has quoted."""
    before, scheme, rest = piece[0].partition("://")
    _, at, host = rest.rpartition("@")
    return f"{before}{scheme}{REDACTED}{at}{host}" if at else piece[0]
