"""JSON schemas are programs for an engine: what would keep it busy for all others is refused.

Counts are unrolled when a schema is compiled: an array of at least a hundred million items took
the compiler 53 s (llguidance 1.7), in the process that everybody waits for.
"""

from __future__ import annotations

import json
from typing import Any, Final

from raglan.errors import InvalidInput

_MAX_CHARS: Final = 16_384
_MAX_COUNT: Final = 1_000
_COUNTS: Final = frozenset(
    f"{side}{what}" for side in ("min", "max") for what in ("Items", "Length", "Properties")
) | {"minContains", "maxContains"}


def check(schema: str) -> None:
    """Refuse what is no JSON object, too long, or counts too far.

    Raises:
        InvalidInput: with the limit.
    """
    if len(schema) > _MAX_CHARS:
        raise InvalidInput(f"json_schema has {len(schema)} characters; the limit is {_MAX_CHARS}.")
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError):
        raise InvalidInput("json_schema is no JSON.") from None
    if not isinstance(document, dict):
        raise InvalidInput("json_schema is no JSON object.")
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            _check_counts(node)


def _check_counts(node: dict[str, Any]) -> None:
    for name in _COUNTS & node.keys():
        count = node[name]
        # A property of that name holds a schema.
        if isinstance(count, int | float) and count > _MAX_COUNT:
            raise InvalidInput(f"json_schema has {name} {count}; the limit is {_MAX_COUNT}.")
