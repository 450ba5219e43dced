"""The Compose files as Docker Compose reads them, without Docker: interpolated and merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "deploy" / "compose"
BASE: Final = "compose.yaml"
OBSERVABILITY: Final = "compose.observability.yaml"

MIXES: Final = (
    (BASE,),
    (BASE, "compose.qdrant.yaml"),
    (BASE, "compose.ollama.yaml"),
    (BASE, "compose.gpu.yaml"),
    (BASE, OBSERVABILITY),
    (BASE, "compose.qdrant.yaml", "compose.gpu.yaml", OBSERVABILITY),
)
"""Files that are started together."""

_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?-)([^}]*))?\})")
_REPLACED: Final = ("command", "entrypoint", "test")
"""Lists that a later file replaces; it adds to the others."""


def load(*names: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The files `names` as one, with the variables of `environ` alone."""
    merged: dict[str, Any] = {}
    for name in names:
        text = (FOLDER / name).read_text()
        merged = _merge(merged, _interpolated(yaml.safe_load(text), environ or {}))
    return {key: value for key, value in merged.items() if not key.startswith("x-")}


def _interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [_interpolated(each, environ) for each in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        escaped, name, operator, default = match.groups()
        if escaped:
            return "$"
        held = environ.get(name)
        if held is None or (operator == ":-" and not held):
            assert operator, f"{name} has no default"
            return str(default)
        return held

    return _REFERENCE.sub(replaced, value)


def _merge(before: Any, after: Any, key: str = "") -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        both = {**before, **after}
        return {
            name: _merge(before[name], after[name], name)
            if name in before and name in after
            else value
            for name, value in both.items()
        }
    if isinstance(before, list) and isinstance(after, list) and key not in _REPLACED:
        return [*before, *(each for each in after if each not in before)]
    return after
