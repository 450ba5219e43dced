"""Passages by what a request prefers."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from raglan.v1 import common_pb2
from raglan_gateway.api import schemas
from raglan_gateway.api.openai.lenient import QueryOptions, query_request
from raglan_gateway.api.preference_schemas import preferences
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.preferences import Boost, ordered

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def passage(
    id_: str, text: str = "", *, exact: bool = False, **metadata: Any
) -> common_pb2.Passage:
    text = text or f"Text of {id_}."
    return common_pb2.Passage(
        chunk_id=id_, text=text, metadata_json=json.dumps(metadata), exact=exact
    )


def ids(passages: list[common_pb2.Passage], *boosts: Boost, **options: Any) -> str:
    found = ordered(
        passages, boosts, options.get("diversity", 0.0), options.get("limit", 10), now=NOW
    )
    return "".join(each.chunk_id for each in found)


def test_a_value_is_worth_its_weight() -> None:
    found = [passage("a"), passage("b", team="x"), passage("c", team=["y", "x"])]
    assert ids(found) == "abc"
    assert ids(found, Boost("team", 0.4, '"x"')) == "abc"
    assert ids(found, Boost("team", 0.6, '"x"')) == "bac"
    assert ids(found, Boost("team", 1, '"x"')) == "bac"
    assert ids(found, Boost("team", 1, '"z"')) == "abc"
    disliked = [passage("a", team="x"), passage("b"), passage("c")]
    assert ids(disliked, Boost("team", -0.6, '"x"')) == "bac"
    assert ids(disliked, Boost("team", -1, '"x"')) in ("bac", "bca")


def test_values_are_compared_with_their_types_and_reach_into_objects() -> None:
    found = [passage("a"), passage("b", n="1", draft={"ok": True})]
    assert ids(found, Boost("n", 1, "1")) == "ab"
    assert ids(found, Boost("n", 1, '"1"'), Boost("draft.ok", 0.5, "true")) == "ba"
    assert ids([passage("a"), passage("b"), passage("c", n=1.0)], Boost("n", 0.9, "1")) == "acb"
    assert ids([passage("a"), passage("b"), passage("c", n=True)], Boost("n", 0.9, "1")) == "abc"


def test_newer_dates_come_first_and_lose_half_in_the_half_life() -> None:
    found = [
        passage("a", date="2026-05-29"),
        passage("b", date="2026-11-29"),
        passage("c", date="2026-11-28T12:00:00Z"),
        passage("d", date="soon"),
    ]
    assert ids(found, Boost("date", 0.1, half_life_days=30)) == "abcd"
    assert ids(found, Boost("date", 0.5, half_life_days=30)) == "bacd"
    assert ids(found, Boost("date", 0.5, half_life_days=36_500)) == "abcd"


def test_exact_matches_are_first_whatever_is_preferred() -> None:
    found = [passage("a", n=1), passage("b", exact=True), passage("c", n=1)]
    assert ids(found, Boost("n", 1, "1")) == "bac"
    assert ids(found, diversity=0.5).startswith("b")


def test_large_metadata_are_read_once_and_in_part() -> None:
    dates = ["2026-01-01T00:00:00Z"] * 1_000
    found = [passage(str(n), dates=dates) for n in range(100)]
    boosts = [Boost("dates", 0.1, half_life_days=days) for days in range(1, 9)]
    begun = time.process_time()
    ordered(found, boosts, 0.0, 10)
    assert time.process_time() - begun < 0.2


def test_repetitions_give_way() -> None:
    text = "The pump is vented through the upper screw before the first start. " * 3
    found = [
        passage("a", text),
        passage("b", text + "Then it runs."),
        passage("c", "A valve closes at nine bar, which the display shows in red."),
        passage("d", "Nothing of it matters to the garden."),
    ]
    assert ids(found, limit=2) == "ab"
    assert ids(found, limit=2, diversity=0.4) == "ac"
    assert sorted(ids(found, diversity=1.0)) == ["a", "b", "c", "d"]


@given(
    st.lists(st.tuples(st.booleans(), st.text(max_size=40)), max_size=12),
    st.floats(0, 1),
    st.floats(-1, 1),
    st.integers(1, 12),
)
def test_the_result_is_a_selection_with_exact_matches_first(
    drawn: list[tuple[bool, str]], diversity: float, weight: float, limit: int
) -> None:
    found = [passage(str(n), t, exact=e) for n, (e, t) in enumerate(drawn)]
    got = ordered(found, [Boost("a", weight, "1")], diversity, limit, now=NOW)
    assert len(got) == min(limit, len(found))
    assert len({each.chunk_id for each in got}) == len(got)
    marks = [each.exact for each in got]
    assert marks == sorted(marks, reverse=True)


def test_metadata_that_cannot_be_read_boost_nothing() -> None:
    broken = passage("b")
    broken.metadata_json = "{"
    assert ids([passage("a"), broken], Boost("x", 1, "1")) == "ab"
    assert ordered([], [], 0.5, 3) == []


@pytest.mark.parametrize(
    "boost",
    [
        {"field": "a"},
        {"field": "a", "value": 1, "half_life_days": 3},
        {"field": "a", "value": 1, "weight": 1.5},
        {"field": "", "value": 1},
        {"field": "a", "half_life_days": 0},
    ],
)
def test_a_boost_is_of_one_kind_within_its_limits(boost: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        schemas.SearchRequest(query="a", boosts=[boost])


def test_boosts_of_a_request_keep_the_type_of_their_value() -> None:
    given_boosts = [{"field": "a", "value": True}, {"field": "b", "half_life_days": 7, "weight": 1}]
    body = schemas.SearchRequest.model_validate({"query": "a", "boosts": given_boosts})
    assert preferences(body.boosts) == (Boost("a", 0.2, "true"), Boost("b", 1.0, "", 7.0))


def test_other_apis_pass_preferences_on() -> None:
    options = QueryOptions.model_validate(
        {"boosts": [{"field": "a", "value": 1}], "diversity": 0.3, "expand_tokens": 500}
    )
    body = query_request({"query": "a"}, options, {})
    assert preferences(body.boosts) == (Boost("a", 0.2, "1"),)
    assert (body.diversity, body.expand_tokens) == (0.3, 500)
    with pytest.raises(InvalidParameter, match=r"raglan\.diversity"):
        query_request({"query": "a"}, QueryOptions(diversity=2.0), {})
