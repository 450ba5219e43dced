"""Hooks of Schemathesis: most of what it generates names things that exist.

Random names miss every collection, file and model, so that random requests would all end in the
same refusals. `RAGLAN_FUZZ_IDS` is JSON: the ids to use, by the name of the parameter.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from typing import Any, Final

import schemathesis

IDS: Final[dict[str, list[str]]] = json.loads(os.environ["RAGLAN_FUZZ_IDS"])
_SPARED: Final = "nothing-to-delete"
"""Name in requests that delete, which would leave nothing for the others."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_IN_BODIES: Final = {"file_id": "file_id", "session_id": "session_id", "model": "model"}
_LISTS_IN_BODIES: Final = {"collections": "name", "file_ids": "file_id", "vector_store_ids": "name"}


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Name what exists, in three of four requests."""
    deletes = context.operation is not None and context.operation.method.upper() == "DELETE"
    if not isinstance(path_parameters, dict):
        return path_parameters
    return {name: _named(name, value, deletes) for name, value in path_parameters.items()}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Name what exists, and end conversations with a question."""
    if not isinstance(body, dict):
        return body
    made = dict(body)
    for field, ids in _IN_BODIES.items():
        if field in made:
            made[field] = _named(ids, made[field])
    for field, ids in _LISTS_IN_BODIES.items():
        if isinstance(values := made.get(field), list):
            made[field] = [_named(ids, value) for value in values]
    messages = made.get("messages")
    if isinstance(messages, list) and all(isinstance(each, dict) for each in messages):
        made["messages"] = [*messages, {"role": "user", "content": "What is there to find?"}]
    return made


def _named(name: str, value: Any, deletes: bool = False) -> Any:
    # Negative values are left alone: replacing them would make a valid request of a wrong one.
    if name not in IDS or not isinstance(value, str) or not _PLAIN.fullmatch(value):
        return value
    if deletes:
        return _SPARED if value in IDS[name] else value
    digest = zlib.crc32(value.encode())
    return IDS[name][digest % len(IDS[name])] if digest % 4 else value
