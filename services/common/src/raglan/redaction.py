"""Redaction of log records: secrets and content, by field name and by format.

Names are the sure way, and texts are searched as well: messages of exceptions and lines of foreign
libraries hold URLs with credentials, headers, and what a user sent. In a text, a secret is found
by the name before it (`password=...`, `Bearer ...`), by its own format (`secret_formats.toml`), or
because the process was told it; a passage that somebody writes into a sentence is not, so nobody
does.
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

from raglan import secret_formats

REDACTED: Final = "[redacted]"

SECRET_WORDS: Final = frozenset(
    {
        *("apikey", "authorization", "bearer", "cookie", "cookies", "credential", "credentials"),
        *("dsn", "jwt", "passphrase", "passwd", "password", "passwords", "pwd", "secret"),
        *("secrets", "sessionid"),
    }
)
"""A name with one of these among its words holds a secret, whatever its value."""

CREDENTIAL_WORDS: Final = frozenset({"auth", "key", "keys", "session"})
"""A name that is one of these or ends with it, `id` or `value` after it or not, holds a secret."""

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
"""Keys of these are secrets in the middle of a name too."""

_OPEN_KEYS: Final = frozenset({"cache", "foreign", "partition", "primary", "public", "sort"})
"""Keys of these are no secrets."""

_TOKEN_OF: Final = frozenset({"each", "first", "last", "max", "next", "per"})
"""Of which a token is one of a text."""

_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 100
_MAX_CHARS: Final = 8_192
_LOOKED_AT: Final = 65_536
_SHORT: Final = 96
_FEWEST: Final = 6

_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SUSPECTS: Final = (
    *("://", "bearer", "basic", "auth", "cookie", "key", "passw", "pwd", "passphrase", "secret"),
    *(
        "session",
        "token",
        "credential",
        "sk-",
        "hf_",
        "eyj",
        "gho_",
        "ghp_",
        "ghr_",
        "ghs_",
        "ghu_",
    ),
    *("github_", "glpat-", "xox", "aiza", "akia", "asia", "private", "input_value"),
)
"""In lower case. A text without any of them holds nothing that the patterns below find."""

_QUOTE: Final = r"\\{0,7}[\"']"
"""One that stands in a text within a text is escaped, once or more."""

_LINE: Final = re.compile(
    rf"((?:authorization|cookie)(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}})(?![\\\"'\s])[^\r\n]+",
    re.IGNORECASE,
)
_VALUE: Final = (
    r"(?:b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'"
    r"|(?P<escapes>\\{1,7})(?P<quote>[\"'])[\s\S]*?(?<!\\)(?P=escapes)(?P=quote)"
    r"|\\{0,7}[\"'][^\r\n]*|\S+)"
)
"""In quotes, in escaped ones, in one that is never closed, or up to the next space."""

_NAME: Final = (
    r"(?:authorization|cookie|(?:api|access|private|secret|signing) ?key"
    r"|(?:_|-|(?-i:[a-z](?=K)))key|passwo?r?d|pwd|passphrase|secret|token(?!s)|credential)"
)
_PAIR: Final = re.compile(
    # A short word is a name only where its form says so: "the key: a string" is a sentence.
    rf"((?:{_NAME}[\w -]{{0,30}}|\b(?:auth|key|session)(?:_?id|_?key)?(?=\s?=|\\{{0,7}}[\"']))"
    rf"(?:{_QUOTE})?\s{{0,3}}(?:[:=]|(?<=[\"']),)\s{{0,3}}){_VALUE}",
    re.IGNORECASE,
)
_OPTION: Final = re.compile(
    rf"(--?(?:[a-z0-9]{{1,20}}-){{0,4}}(?:{_NAME}|key|auth|session)(?:-[a-z0-9]{{1,20}}){{0,2}}"
    rf"\s{{1,3}})(?!-){_VALUE}",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\b(bearer|basic)(\s{1,3})[^\s,;\"']+", re.IGNORECASE)
# Prefixes that stand for nothing else: the rest is hidden even where it is cut short.
_SHAPE: Final = re.compile(
    r"(?:\b|(?<=\\[nrt]))(?:sk-|hf_|eyJ|gh[oprsu]_|github_pat_|glpat-|xox[a-z]-|AIza"
    r"|A[KS]IA(?=[A-Z0-9]{8}))[\w.-]{8,}"
)
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)"
)
# What pydantic was given, which is what a user sent.
_GIVEN: Final = re.compile(r"(input_value=)[^\r\n]*")
_PIECE: Final = re.compile(r"\S+")

_told: tuple[str, ...] = ()


class _Kind(enum.Enum):
    PLAIN = 0
    CONTENT = 1
    SECRET = 2


def register_secrets(secrets: Iterable[str]) -> None:
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
    return {name: redact_field(name, value) for name, value in fields.items()}


def redact_field(name: str, value: Any, depth: int = 0) -> Any:
    """Redact `value` according to its field `name`."""
    kind = _kind(name)
    if kind is _Kind.PLAIN or value is None:
        return redact_value(value, depth)
    if kind is _Kind.CONTENT and isinstance(value, numbers.Number):
        return redact_value(value, depth)
    return REDACTED


def redact_value(value: Any, depth: int = 0) -> Any:
    """Redact `value` and convert it to JSON types.

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
        return {text(str(name)): redact_field(str(name), each, depth + 1) for name, each in items}
    if isinstance(value, list | tuple | set | frozenset):
        return _sequence(list(value)[:_MAX_ITEMS], depth)
    return _scalar(value)


def text(value: str) -> str:
    """`value` without secrets that have their form, or are registered, and not too long."""
    return _short_text(value) if len(value) <= _SHORT else _searched(value)


def traceback(value: str) -> str:
    """Redact a traceback as a whole, as a key may span lines, and keep its informative end."""
    return _searched(value[-_LOOKED_AT:], _LOOKED_AT)


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
            return [text(named), redact_field(named, items[1], depth + 1)]
    return [redact_value(each, depth + 1) for each in items]


@lru_cache(2_048)
def _kind(name: str) -> _Kind:
    words = [word.lower() for word in _WORDS.findall(name[:200])]
    if not words:
        return _Kind.PLAIN
    named = "_".join(words)
    if named in SECRET_NAMES or not SECRET_WORDS.isdisjoint(words) or _is_credential(words):
        return _Kind.SECRET
    if words[-1] not in _ABOUT and not CONTENT_WORDS.isdisjoint(words):
        return _Kind.CONTENT
    return _Kind.PLAIN


def _is_credential(words: list[str]) -> bool:
    """Return whether a key, token or session is named, at the end or before `id` or `value`."""
    if any(a in _KEY_OF and b in ("key", "keys") for a, b in pairwise(words)):
        return True
    *before, last = words
    if last in ("id", "value") and before:
        *before, last = before
    if last in ("key", "keys"):
        return not before or before[-1] not in _OPEN_KEYS
    if last == "token":
        return not before or before[-1] not in _TOKEN_OF
    return last in CREDENTIAL_WORDS


@lru_cache(4_096)
def _short_text(value: str) -> str:
    return _searched(value)


def _searched(value: str, most: int = _MAX_CHARS) -> str:
    """Each search is linear in the length of `value`, whatever it holds."""
    value = value[:_LOOKED_AT]
    for secret in _told:
        value = value.replace(secret, REDACTED)
    lowered = value.lower()
    if any(word in lowered for word in _SUSPECTS):
        if "@" in value and "://" in value:
            value = _PIECE.sub(_without_credentials, value)
        if "private" in lowered:
            value = _PEM.sub(REDACTED, value)
        value = _LINE.sub(rf"\1{REDACTED}", value)
        value = _PAIR.sub(rf"\1{REDACTED}", value)
        if "-" in value:
            value = _OPTION.sub(rf"\1{REDACTED}", value)
        value = _SCHEME.sub(rf"\1\2{REDACTED}", value)
        value = _SHAPE.sub(REDACTED, value)
        value = _GIVEN.sub(rf"\1{REDACTED}", value)
    value = secret_formats.replace(value, REDACTED)
    return value if len(value) <= most else f"{value[:most]}..."


def _without_credentials(piece: re.Match[str]) -> str:
    """Up to the last @: a password may hold an unquoted one, or a slash."""
    before, scheme, rest = piece[0].partition("://")
    _, at, host = rest.rpartition("@")
    return f"{before}{scheme}{REDACTED}{at}{host}" if at else piece[0]
