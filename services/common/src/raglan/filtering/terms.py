"""Metadata of a chunk, turned into what both stores filter alike.

Stores disagree on types: for one, `true` equals 1; for the other, 1 never equals 1.0. So each
value of the metadata becomes a term, a string such as `["author.name","Ada"]` that a keyword index
finds exactly, and each number is kept besides for ranges. What equals what is decided here alone:

- a field is a path through objects and arrays: "a.b" finds `{"a": {"b": 1}}`, `{"a": [{"b": 1}]}`
  and `{"a.b": 1}`;
- an array matches when one of its elements does;
- numbers compare by value (1 equals 1.0), and never equal text or booleans;
- texts that are dates or times (RFC 3339) are kept as seconds besides, for ranges;
- a field exists when it holds anything but null, or an array of nothing but nulls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NoReturn
from urllib.parse import quote

from raglan.errors import InvalidInput
from raglan.metadata import Scalar, as_float, check, leaves
from raglan.moments import moment_of

_LONG: Final = 200


@dataclass(slots=True)
class Indexed:
    """Fields of one chunk that filters test."""

    terms: list[str] = field(default_factory=list)
    """One a field and value, one a field that exists. No duplicates."""

    numbers: dict[str, list[float]] = field(default_factory=dict)
    """Numbers by `number_key` of their field, and seconds since 1970 by its `time_key`."""


def term(path: str, value: Scalar) -> str:
    """Return the term for a field at `path` that holds `value`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _short(json.dumps([path, value], separators=(",", ":")))


def exists_term(path: str) -> str:
    """Return the term for the presence of a field at `path`."""
    return _short(json.dumps([path]))


def number_key(path: str) -> str:
    """Return the key of `Indexed.numbers` for `path`: of letters, digits and `_.-~%` only."""
    return quote(path, safe="", errors="surrogatepass")


def time_key(path: str) -> str:
    """Return the key of `Indexed.numbers` for times: `quote` writes no lower-case escape."""
    return f"%time{number_key(path)}"


def index(metadata_json: str, *, also: Mapping[str, str] | None = None, **fixed: str) -> Indexed:
    """Return terms and numbers of a JSON object and of `fixed` fields, which shadow its own.

    Args:
        metadata_json: a JSON object, or "" for an empty one.
        also: fields that are found beside those of the same name; empty ones are left out.
        **fixed: Fields that replace those of the same name.

    Raises:
        InvalidInput: not a JSON object, or beyond the limits of `raglan.metadata`.
    """
    metadata = _parse(metadata_json)
    check(metadata)
    added = {name: text for name, text in (also or {}).items() if text}
    found = Indexed()
    terms: dict[str, None] = {}
    for path, value in chain(leaves(metadata | fixed), leaves(added)):
        if value is None:
            terms[exists_term(path)] = None
            continue
        terms[term(path, value)] = None
        if isinstance(value, str) and (moment := moment_of(value)):
            found.numbers.setdefault(time_key(path), []).append(moment.timestamp())
        if not isinstance(value, str | bool):
            found.numbers.setdefault(number_key(path), []).append(as_float(value))
    found.terms = list(terms)
    return found


def _parse(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The metadata is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise InvalidInput('The metadata must be a JSON object, such as {"lang": "en"}.')
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _short(text: str) -> str:
    """Return a long value's hash, so that the keyword index stays small."""
    if len(text) <= _LONG:
        return text
    return "#" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
