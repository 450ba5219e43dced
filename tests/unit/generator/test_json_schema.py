"""Schemas that would keep the engine busy never reach it."""

from __future__ import annotations

import json

import pytest
from raglan.errors import InvalidInput
from raglan_generator import json_schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array", "items": {"type": "string", "maxLength": 1_000}, "maxItems": 1_000},
        {"type": "object", "properties": {"maxItems": {"type": "integer"}}},
        {"enum": [5_000, "minItems"]},
        {"minimum": -1e9, "maximum": 1e9},
    ],
)
def test_an_ordinary_schema_passes(schema: dict[str, object]) -> None:
    json_schema.check(json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"minItems": 100000000}', "minItems 100000000; the limit is 1000"),
        ('{"anyOf": [{"items": {"maxLength": 1001}}]}', "maxLength 1001"),
        ('{"minItems": 1e9}', "minItems"),
        ('{"$defs": {"a": {"maxProperties": 9999}}}', "maxProperties"),
        ("[]", "object"),
        ("3", "object"),
        ("{", "no JSON"),
        ('{"a":' * 2_000 + "1" + "}" * 2_000, "no JSON"),
        ('{"title": "' + "x" * 20_000 + '"}', "20013 characters; the limit is 16384"),
    ],
)
def test_what_would_keep_the_engine_busy_is_refused(schema: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        json_schema.check(schema)
