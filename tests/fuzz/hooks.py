"""Hooks of Schemathesis: most of what it generates names things that exist.

Random names miss every collection, file and model, so that random requests would all end in the
same refusals. `RAGLAN_FUZZ_IDS` is JSON: the ids to use, by the name of the parameter.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from typing import Any, Final

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode

IDS: Final[dict[str, list[str]]] = json.loads(os.environ["RAGLAN_FUZZ_IDS"])
_SPARED: Final = "nothing-to-delete"
"""Name in requests that delete, which would leave nothing for the others."""
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
def before_call(_: Any, case: Any, **__: Any) -> None:
    """Change the parts of a request that are valid; one that is wrong on purpose stays wrong."""
    if case.meta is None:
        return
    valid = {
        place
        for place, part in case.meta.components.items()
        if part.mode is GenerationMode.POSITIVE
    }
    if ParameterLocation.PATH in valid and isinstance(case.path_parameters, dict):
        deletes = case.method.upper() == "DELETE"
        models = case.path.startswith("/v1/models")
        case.path_parameters = {
            name: _named("model" if models else name, value, deletes)
            for name, value in case.path_parameters.items()
        }
    if ParameterLocation.BODY in valid and isinstance(case.body, dict):
        case.body = _named_body(_answerable(case.path, case.body))


def _answerable(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make every second request of a model's answer one that is answered.

    Of a dozen random fields one is refused nearly always, such as a temperature of a million.
    """
    chance = random.Random(zlib.crc32(repr(body).encode()))
    if (asked := _ASKED.get(path)) is None or chance.random() < 0.5:
        return body
    others = sorted(body.keys() - asked.keys())
    kept = set(chance.sample(others, min(1, len(others)))) | {"stream"}
    return {name: body[name] for name in others if name in kept} | asked


def _named_body(body: dict[str, Any]) -> dict[str, Any]:
    made = dict(body)
    for field, ids in _IN_BODIES.items():
        if field in made:
            made[field] = _named(ids, made[field])
    for field, ids in _LISTS_IN_BODIES.items():
        if isinstance(values := made.get(field), list):
            made[field] = [_named(ids, value) for value in values]
    return made


def _named(name: str, value: Any, deletes: bool = False) -> Any:
    """Return an id that exists, in three of four cases."""
    if name not in IDS or not isinstance(value, str):
        return value
    if deletes:
        return _SPARED if value in IDS[name] else value
    digest = zlib.crc32(value.encode())
    return IDS[name][digest % len(IDS[name])] if digest % 4 else value
