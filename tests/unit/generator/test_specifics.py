"""Specific terms of a question, and their presence in a text."""

from __future__ import annotations

import pytest
from raglan.terms import terms
from raglan_generator.specifics import specifics_of


def lack(question: str, text: str, language: str = "en") -> float:
    """Return the share of the question's specific terms that `text` lacks."""
    held = set(terms(text, language))
    asked = specifics_of(question, language)
    return sum(each.weight for each in asked if not each.is_alike_in(held))


@pytest.mark.parametrize(
    ("question", "other", "own"),
    [
        ("How much leave is there in Norway?", "Leave in Sweden: 25 days", "Leave in Norway: 25"),
        ("What is new in version 4.2?", "New in version 4.1: pumps", "New in version 4.2.1: pumps"),
        ("What does the QX-310 weigh?", "The QX-320 weighs 3 kg", "The QX-310 weighs 3 kg"),
        ("What does ERR_PUMP_DRY mean?", "ERR_PUMP_HOT means hot", "ERR_PUMP_DRY means dry"),
        ("What does P04321 cost?", "P04322 costs 3 EUR", "P04321 costs 3 EUR"),
        ("default of maxPumpTime", "maxPumpSize: 3, a default", "maxPumpTime: 3, a default"),
        ("Does it run on kubernetes?", "It runs on a laptop", "It runs on Kubernetes"),
        ("What happened in 1984?", "What happened in 1985", "In 1984 it happened"),
    ],
)
def test_the_neighbour_of_what_is_asked_for_is_not_it(question: str, other: str, own: str) -> None:
    assert lack(question, own) < 0.3
    assert lack(question, other) > lack(question, own) + 0.4


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How do I grab it in one go?", "All are fetched together"),
        ("The pump stops after 15 seconds, why?", "The pump stops when it is dry"),
        ("What is the max pressure?", "The maximum pressure is 3 bar"),
        ("Which lenght does the hose have?", "The hose has a length of 3 m"),
        ("Which interpretor is used?", "The interpreter"),
        ("Can it read formats such as v3.11.4?", "It can read old formats"),
    ],
)
def test_common_words_quantities_short_forms_and_slips_need_not_be_there(
    question: str, text: str
) -> None:
    assert lack(question, text) < 0.35


def test_stop_words_are_those_of_the_question() -> None:
    assert lack("What does P04321 cost?", "P04321", "fr") < 0.1


def test_what_tells_most_comes_first_and_the_number_is_bounded() -> None:
    assert specifics_of("Where is the ERR_PUMP_DRY code explained?", "en")[0].weight > 1
    assert len(specifics_of(" ".join(f"w{n}x" for n in range(500)), "en", most=64)) == 64


def test_german_nouns_are_no_names() -> None:
    assert lack("Wo steht die Pumpe im Keller?", "Oben", "de") < 0.5
