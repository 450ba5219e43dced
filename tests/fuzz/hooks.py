"""Hooks of Schemathesis: most of what it generates names things that exist.

Random names miss every collection, file and model, so that random requests would all end in the
same refusals. `RAGLAN_FUZZ_IDS` is JSON: the ids to use, by the name of the parameter.
"""

from __future__ import annotations

import json
import os
import random
import re
import zlib
from typing import Any, Final

import schemathesis
from schemathesis.generation import GenerationMode

IDS: Final[dict[str, list[str]]] = json.loads(os.environ["RAGLAN_FUZZ_IDS"])
_SPARED: Final = "nothing-to-delete"
"""Name in requests that delete, which would leave nothing for the others."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]+")
_QUESTION: Final = {"role": "user", "content": "When does a pump stop?"}
_ASKED: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"model": "raglan", "messages": [_QUESTION]},
    "/v1/responses": {"model": "raglan", "input": [_QUESTION]},
    "/v1/query": {"query": _QUESTION["content"]},
    "/v1/search": {"query": _QUESTION["content"]},
    "/v1/embeddings": {"model": "raglan", "input": ["a", "b"]},
    "/v1/rerank": {"query": "a", "documents": ["a", {"text": "b"}]},
    "/v2/rerank": {"model": "raglan", "query": "a", "documents": ["a"]},
}
_IN_BODIES: Final = {"file_id": "file_id", "session_id": "session_id", "model": "model"}
_LISTS_IN_BODIES: Final = {"collections": "name", "file_ids": "file_id", "vector_store_ids": "name"}


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Name what exists, in three of four requests."""
    deletes = context.operation is not None and context.operation.method.upper() == "DELETE"
    if not isinstance(path_parameters, dict):
        return path_parameters
    models = context.operation is not None and context.operation.path.startswith("/v1/models")
    return {
        name: _named("model" if models else name, value, deletes)
        for name, value in path_parameters.items()
    }


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Name what exists."""
    if not isinstance(body, dict):
        return body
    made = dict(body)
    for field, ids in _IN_BODIES.items():
        if field in made:
            made[field] = _named(ids, made[field])
    for field, ids in _LISTS_IN_BODIES.items():
        if isinstance(values := made.get(field), list):
            made[field] = [_named(ids, value) for value in values]
    return made


@schemathesis.hook
def before_call(_: Any, case: Any, **__: Any) -> None:
    """Make every second valid request of a model's answer one that is answered.

    Of a dozen random fields one is refused nearly always, such as a temperature of a million.
    """
    is_valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if not (is_valid and isinstance(case.body, dict)):
        return
    chance = random.Random(zlib.crc32(repr(case.body).encode()))
    if (asked := _ASKED.get(case.path)) is None or chance.random() < 0.5:
        return
    others = sorted(case.body.keys() - asked.keys())
    kept = set(chance.sample(others, min(1, len(others)))) | {"stream"}
    case.body = {name: case.body[name] for name in others if name in kept} | asked


def _named(name: str, value: Any, deletes: bool = False) -> Any:
    # Negative values are left alone: replacing them would make a valid request of a wrong one.
    if name not in IDS or not isinstance(value, str) or not _PLAIN.fullmatch(value):
        return value
    if deletes:
        return _SPARED if value in IDS[name] else value
    digest = zlib.crc32(value.encode())
    return IDS[name][digest % len(IDS[name])] if digest % 4 else value
