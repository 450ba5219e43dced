"""Contradictions, and paraphrases that are none."""

from __future__ import annotations

import pytest
from raglan.conflicts import Source, find_conflict

SHOP = (
    "Returns are accepted within 30 days. The warranty lasts 90 days. "
    "Hotel costs are refunded up to 120 euro a night in Germany. "
    "In Switzerland the limit is 180 francs. Gift cards cannot be returned. "
    "The Kestrel bridge opened in 1931. It spans 1,420 metres."
)


def conflict(claim: str, text: str = SHOP, language: str = "en", context: str = "") -> str:
    sentences = [f"{part}." for part in text.rstrip(".").split(". ")]
    return find_conflict(
        claim, [Source(sentences, language=language, context=context)], language=language
    )


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ("Returns are accepted within 30 days.", ""),
        ("Returns are accepted within 90 days.", "number"),
        ("Returns are accepted within 60 days.", "number"),
        ("The warranty lasts 90 days.", ""),
        ("In Germany up to 120 euro are refunded and 180 francs in Switzerland.", ""),
        ("The limit in Germany is 180 francs.", "number"),
        ("It spans 1420 metres.", ""),
        ("It spans 1.420 metres.", ""),
        ("It spans 1 420 metres.", ""),
        ("It spans 1,421 metres.", "number"),
        ("The Kestrel bridge spans 1,420 metres.", ""),
        ("1. Returns are accepted.", ""),
        ("Set `x[17]` for returns.", ""),
    ],
)
def test_a_number_has_to_be_that_of_the_same_thing(claim: str, found: str) -> None:
    assert conflict(claim) == found


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ("The bridge of Kestrel opened in 1931.", ""),
        ("The Falcon bridge opened in 1931.", "name"),
        ("Hotel costs in Austria are refunded.", "name"),
        ("The costs of German hotels are refunded.", ""),
        ("In Bern the limit is 180 francs.", "name"),
    ],
)
def test_a_name_has_to_stand_in_the_passage(claim: str, found: str) -> None:
    assert conflict(claim) == found


def test_title_and_headings_give_names_too() -> None:
    assert conflict("At Initech returns are accepted within 30 days.") == "name"
    assert conflict("At Initech returns are accepted.", context="Initech \u00b7 Policy") == ""


def test_an_acronym_is_its_words() -> None:
    text = "The World Health Organization recommends it."
    assert conflict("It is recommended by the WHO.", text) == ""
    assert conflict("It is recommended by the FDA.", text) == "name"


@pytest.mark.parametrize(
    ("language", "text", "same", "opposite"),
    [
        ("en", SHOP, "Gift cards can not be returned.", "Gift cards can be returned."),
        ("en", "It doesn't store mail.", "It does not store mail.", "It stores mail."),
        ("en", "It encrypts traffic.", "It encrypts the traffic.", "It does not encrypt traffic."),
        (
            "de",
            "Gutscheine werden nicht ausgezahlt.",
            "Gutscheine werden nie ausgezahlt.",
            "Gutscheine werden ausgezahlt.",
        ),
        ("fr", "Le chien ne mange pas la viande.", "Le chien ne mange pas la viande crue.",
         "Le chien mange la viande."),
        ("es", "La garantía cubre los daños.", "La garantía cubre daños.",
         "La garantía no cubre los daños."),
        ("zh", "本产品不支持无线充电。", "产品不支持充电。", "产品支持无线充电。"),
        ("ru", "Гарантия не покрывает повреждения.", "Гарантия не покрывает повреждения.",
         "Гарантия покрывает повреждения."),
    ],
)  # fmt: skip
def test_a_negation_decides(language: str, text: str, same: str, opposite: str) -> None:
    assert conflict(same, text, language) == ""
    assert conflict(opposite, text, language) == "negation"


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (
            "Refunds are paid within 30 days.",
            "Refunds are paid within 30 days, but not for books.",
        ),
        ("It covers all items but not sale items.", "It covers all items except sale items."),
        ("The cat is not grey.", "The dog is brown. The bird is yellow."),
        ("Registration is free.", "There is no charge for registration."),
    ],
)
def test_what_may_be_meant_alike_is_no_conflict(claim: str, text: str) -> None:
    assert conflict(claim, text) == ""


def test_numbers_decide_across_languages_but_names_and_negations_do_not() -> None:
    source = Source(["Die Garantie gilt in Deutschland 30 Tage nicht."], language="de")
    assert find_conflict("In Germany the warranty is 30 days.", [source], language="en") == ""
    assert find_conflict("In Germany the warranty is 90 days.", [source], language="en") == "number"


def test_numbers_may_be_words() -> None:
    assert conflict("It takes 3 days.", "It takes three days.") == ""
    assert conflict("It takes four days.", "It takes three days.") == "number"


def test_a_number_in_words_may_count_what_the_source_lists() -> None:
    assert conflict("There are two ways: by mail and by phone.", "Ask by mail. Or by phone.") == ""


def test_an_ordinal_supports_a_number() -> None:
    assert conflict("It is GPU number two.", "It runs on the second GPU.") == ""


def test_a_quote_never_conflicts() -> None:
    for sentence in SHOP.split(". "):
        assert conflict(sentence) == ""
