"""`--metadata`: fields that documents are filtered by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from raglan_cli.failure import UsageFailure


def parse(options: Iterable[str]) -> dict[str, Any]:
    """`key=value` as text, `key:=value` as JSON.

    Two forms, because a version 1.10 or a postal code 01067 must not become a number.

    Raises:
        UsageFailure: an option is neither, or names a field twice.
    """
    fields: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        is_json = key.endswith(":")
        key = key.removesuffix(":")
        if not (key and equals):
            raise UsageFailure(f"--metadata {option}: write it as KEY=VALUE.")
        if key in fields:
            raise UsageFailure(f"--metadata {option}: {key} is given twice.")
        fields[key] = _json(option, value) if is_json else value
    return fields


def _json(option: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        raise UsageFailure(
            f"--metadata {option}: {value} is no JSON; for a text, write one equals sign alone."
        ) from None
