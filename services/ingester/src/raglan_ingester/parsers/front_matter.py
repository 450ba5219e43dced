"""YAML (`---`) and TOML (`+++`) front matter at the top of a document."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any, Final

import yaml

_FENCED: Final = re.compile(
    r"\A(?P<mark>---|\+\+\+)[ \t]*\n(?P<body>.*?)^(?:(?P=mark)|\.\.\.)[ \t]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MAX_CHARS: Final = 16_384
"""Longer front matter is data, not a description of the document."""
_MAX_DEPTH: Final = 32
"""Lists and mappings in one another; the time to read them grows with the square of the depth."""


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """Front matter: metadata at the head of a document."""

    lines: int = 0
    """Number of lines it takes, fences included."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON values by key."""
    warnings: list[str] = field(default_factory=list)


def split_front_matter(text: str) -> FrontMatter:
    """The front matter of `text`; empty where it has none.

    A block between `---` that holds no mapping (two thematic breaks around a paragraph, say) is no
    front matter.
    """
    match = _FENCED.match(text)
    if match is None:
        return FrontMatter()
    lines = match.group().count("\n") + (0 if match.group().endswith("\n") else 1)
    if len(match["body"]) > _MAX_CHARS:
        warning = f"The front matter was ignored: it has more than {_MAX_CHARS:,} characters."
        return FrontMatter(lines, warnings=[warning])
    try:
        loaded = _load_toml(match["body"]) if match["mark"] == "+++" else _load_yaml(match["body"])
        if not isinstance(loaded, dict):
            return FrontMatter()
        return FrontMatter(lines, {_text(str(key)): _plain(value) for key, value in loaded.items()})
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        return FrontMatter(lines, warnings=[f"The front matter was ignored: {_reason(error)}."])


def _reason(error: Exception) -> str:
    """One clause; YAML's own message begins with what was parsed, and ends in a drawing."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1} of it is no YAML ({error.problem})"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _load_toml(body: str) -> Any:
    return tomllib.loads(body)


def _load_yaml(body: str) -> Any:
    depth = 0
    for event in yaml.parse(body, yaml.SafeLoader):
        # An alias that names a list of aliases grows without bound once it is written out.
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it uses YAML aliases")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    return yaml.safe_load(body)


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: dates as ISO 8601, numbers that JSON lacks as text."""
    if isinstance(value, dict):
        return {_text(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return _text(value.isoformat() if isinstance(value, date | time) else str(value))


def _text(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
