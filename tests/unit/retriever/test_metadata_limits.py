"""Metadata accepted at submission is accepted by the index: both check by `raglan.metadata`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from raglan.errors import InvalidInput
from raglan.filtering.terms import index
from raglan.metadata import check


def nested(levels: int) -> dict[str, Any]:
    """Metadata of so many objects inside each other."""
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "metadata", [nested(16), {f"k{n}": n for n in range(1_000)}, {"text": "ж" * 30_000}]
)
def test_metadata_within_the_limits_is_indexed(metadata: dict[str, Any]) -> None:
    check(metadata)

    assert index(json.dumps(metadata), document_id="a").terms


@pytest.mark.parametrize(
    "metadata",
    [nested(17), {f"k{n}": n for n in range(1_001)}, {"text": "ж" * 33_000}, {"n": 10**400}],
)
def test_metadata_beyond_them_is_refused_by_both(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        check(metadata)
    with pytest.raises(InvalidInput):
        index(json.dumps(metadata), document_id="a")
