"""The wire contracts may grow, but nothing that was published may change or go."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from raglan.v1.revision import REVISION

REPOSITORY = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("fields", REPOSITORY / "proto" / "fields.py")
assert spec is not None
assert spec.loader is not None
fields = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fields)


def broken(published: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{name}: was {was!r}, is {now.get(name, 'gone')!r}"
        for name, was in published.items()
        if now.get(name) != was
    ]


def test_nothing_published_has_changed() -> None:
    assert broken(fields.recorded(), fields.current()) == []


def test_everything_there_is_has_been_recorded() -> None:
    assert set(fields.current()) <= set(fields.recorded()), "run: make proto"


def test_the_wire_revision_counts_every_name() -> None:
    assert len(fields.recorded()) == REVISION, "run: make proto"


@pytest.mark.parametrize(
    "now",
    [
        {},
        {"a.B.c": "5 = 2"},
        {"a.B.c": "9 = 1"},
        {"a.B.c": "repeated 5 = 1"},
        {"a.B.d": "5 = 1"},
    ],
)
def test_a_field_that_goes_moves_or_changes_type_is_noticed(now: dict[str, str]) -> None:
    assert broken({"a.B.c": "5 = 1"}, now)


def test_a_new_field_breaks_nothing() -> None:
    assert broken({"a.B.c": "5 = 1"}, {"a.B.c": "5 = 1", "a.B.d": "9 = 2"}) == []


def test_the_record_holds_fields_enums_and_rpcs() -> None:
    recorded = fields.recorded()
    assert recorded["raglan.v1.Tensor.data"] == "12 = 1"
    assert recorded["raglan.v1.Lane.LANE_BULK"] == "value 2"
    assert recorded["raglan.v1.GeneratorService.Generate"].endswith("GenerateEvent 01")
