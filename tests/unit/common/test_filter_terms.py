"""Metadata as terms and numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import InvalidInput
from raglan.filtering.terms import exists_term, index, number_key, term

scalars = st.one_of(
    st.text(max_size=5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)


def test_nested_fields_are_paths():
    found = index('{"author": {"name": "Ada", "born": 1815}}')
    assert term("author.name", "Ada") in found.terms
    assert exists_term("author") in found.terms
    assert found.numbers == {number_key("author.born"): [1815.0]}


def test_each_element_of_an_array_counts():
    found = index('{"tags": ["a", "b", ["c"]], "at": [1, {"x": 2}]}')
    assert {term("tags", tag) for tag in "abc"} <= set(found.terms)
    assert term("at.x", 2) in found.terms


@pytest.mark.parametrize("held", ["null", "[]", "[null]", "[[], null]"])
def test_a_field_that_holds_nothing_does_not_exist(held):
    assert index(f'{{"a": {held}}}').terms == []


def test_an_empty_object_exists():
    assert index('{"a": {}}').terms == [exists_term("a")]


@given(st.text(max_size=5), scalars, st.text(max_size=5), scalars)
def test_terms_are_equal_exactly_when_field_and_value_are(path, value, other, another):
    numbers = not isinstance(value, str | bool) and not isinstance(another, str | bool)
    same = value == another and (numbers or type(value) is type(another))
    assert (term(path, value) == term(other, another)) == (path == other and same)


@given(st.text(max_size=8), scalars)
def test_no_value_looks_like_existence(path, value):
    assert term(path, value) != exists_term(path)


def test_long_values_are_kept_apart_and_short():
    one, two = term("a", "x" * 5000), term("a", "x" * 4999 + "y")
    assert one != two
    assert max(len(one), len(two)) < 200


def test_integers_above_2_to_the_53_stay_apart():
    assert term("a", 2**53) != term("a", 2**53 + 1)


@given(st.text(max_size=10))
def test_number_keys_need_no_quoting(path):
    assert set(number_key(path)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~%"
    )


def test_fixed_fields_shadow_the_metadatas_own():
    found = index('{"document_id": "forged"}', document_id="true")
    assert term("document_id", "true") in found.terms
    assert term("document_id", "forged") not in found.terms


def test_lone_surrogates_are_indexed():
    assert index('{"a\\ud800": "\\ud800", "n\\ud800": 1}').terms


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{", "is not JSON"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "beyond 1.8e308"),
        (f'{{"a": {"9" * 400}}}', "beyond 1.8e308"),
        (f'{{"a": {"9" * 5000}}}', "is not JSON"),
        ('{"a":' * 20 + "1" + "}" * 20, "nested deeper than 16"),
        ("[" * 30_000, "is not JSON"),
        (json.dumps({"a": list(range(2000))}), "more than 1,000 values"),
        (json.dumps({"a": "x" * 70_000}), "the limit is 65,536"),
    ],
)
def test_metadata_that_cannot_be_indexed_is_refused_with_a_sentence(text, says):
    with pytest.raises(InvalidInput, match=says):
        index(text)
