"""Rules for document ids and collection names."""

from __future__ import annotations

import pytest
from raglan.errors import InvalidInput
from raglan.identifiers import check_collection_name, check_document_id

WALKING = [
    ".", "..", "../victim", "../../prod", "a/../b", "a/..", "./a", "a/./b", "..\\b", "a\\..\\b",
    "%2e%2e/b", "a/%2E./b",
]  # fmt: skip


@pytest.mark.parametrize("id_", WALKING)
def test_an_id_that_walks_is_refused_by_name(id_: str) -> None:
    with pytest.raises(InvalidInput, match="segment"):
        check_document_id(id_)


@pytest.mark.parametrize("id_", ["/etc/passwd", "\\\\host\\share", "/"])
def test_an_id_with_a_leading_slash_is_refused(id_: str) -> None:
    with pytest.raises(InvalidInput, match="slash"):
        check_document_id(id_)


@pytest.mark.parametrize("id_", ["a\nb", "a\x1b[31m", "a\x7f", "a\u0085b", "a\u2028b", "a\ud800"])
def test_an_id_with_a_control_character_is_refused(id_: str) -> None:
    with pytest.raises(InvalidInput, match="control character"):
        check_document_id(id_)


@pytest.mark.parametrize(
    "id_",
    ["guide.md", "docs/a/b.md", ".env", "...", "a..b", "..a/b..", "https://example.com/a//b?c=%20",
     "Übersicht 2026.pdf", "文档/说明.md", "a" * 512],
)  # fmt: skip
def test_other_ids_are_taken(id_: str) -> None:
    assert check_document_id(id_) == id_


def test_a_refusal_shows_at_most_a_hundred_characters_of_the_id() -> None:
    for id_ in ("\0" * 500, "../" + "a" * 500, "/" * 512):
        with pytest.raises(InvalidInput) as refused:
            check_document_id(id_)
        quoted = refused.value.message.split("'")[1]
        assert len(quoted) <= 100


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "-a", "a" * 65, "a\n", "prod%2f"])
def test_a_collection_has_a_name_that_is_one_plain_segment(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_collection_name(name)
    assert check_collection_name("a_b-9") == "a_b-9"
