"""A question's history: within its limits, resolved before the search, shown in the reply."""

from __future__ import annotations

from typing import Any

import pytest
from raglan.errors import InvalidInput
from raglan.v1 import generator_pb2
from raglan_gateway.api import schemas
from raglan_gateway.api.checked import checked
from raglan_gateway.query import Query
from raglan_gateway.settings import GatewaySettings

ASKED = [
    {"role": "user", "text": "How do I install hatch on macOS?"},
    {"role": "assistant", "text": "With the pkg file [1]."},
]


def query(text: str, history: list[dict[str, str]], **settings: Any) -> Query:
    body = schemas.QueryRequest.model_validate({"query": text, "history": history})
    return checked(body, "default", GatewaySettings(**settings))[0]


def test_a_follow_up_is_searched_as_its_stand_alone_form_and_sent_as_it_was_asked() -> None:
    asked = query("and on Windows?", ASKED)
    assert asked.line == "How do I install hatch on Windows?"
    assert asked.text == "and on Windows?"
    assert [turn.role for turn in asked.history] == [
        generator_pb2.ROLE_USER,
        generator_pb2.ROLE_ASSISTANT,
    ]


def test_a_question_that_stands_alone_has_no_second_form() -> None:
    assert query("How do I pin the reranker to a GPU?", ASKED).standalone == ""


def test_too_many_turns_are_refused_with_the_limit_and_its_setting() -> None:
    with pytest.raises(InvalidInput, match=r"1000 turns; the limit is 100 .*MAX_HISTORY_TURNS"):
        query("and then?", ASKED * 500)


def test_too_long_a_history_is_refused_with_the_limit_and_its_setting() -> None:
    with pytest.raises(InvalidInput, match=r"54 characters; the limit is 50 .*MAX_HISTORY_CHARS"):
        query("and then?", ASKED, max_history_chars=50)


@pytest.mark.parametrize("turn", [{"role": "user", "text": "  "}, {"role": "system", "text": "x"}])
def test_a_blank_turn_or_one_of_another_role_is_refused(turn: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="history"):
        schemas.QueryRequest.model_validate({"query": "why?", "history": [turn]})
