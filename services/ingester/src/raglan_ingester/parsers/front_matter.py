"""YAML (`---`) and TOML (`+++`) front matter at the top of a document."""

from __future__ import annotations

import json
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


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a document says of itself before its text begins."""

    lines: int = 0
    """How many lines of the document it takes, fences included."""
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
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return FrontMatter(lines, warnings=[f"The front matter was ignored: {reason}."])
    if not isinstance(loaded, dict):
        return FrontMatter()
    return FrontMatter(lines, {str(key): _plain(value) for key, value in loaded.items()})


def _load_toml(body: str) -> Any:
    return tomllib.loads(body)


def _load_yaml(body: str) -> Any:
    # An alias that names a list of aliases grows without bound once it is written out.
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(body, yaml.SafeLoader)):
        raise ValueError("it uses YAML aliases")
    return yaml.safe_load(body)


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: dates as ISO 8601."""

    def text_of(foreign: Any) -> str:
        return foreign.isoformat() if isinstance(foreign, date | time) else str(foreign)

    return json.loads(json.dumps(value, default=text_of, skipkeys=True, allow_nan=False))
