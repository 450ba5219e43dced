"""When to say that the embedding model does not read a document."""

from __future__ import annotations

import pytest
from raglan_ingester.unread_language import UnreadDocuments


@pytest.mark.parametrize("values", [[], [0.9], [0.2, 0.95, 0.95]])
def test_document_that_is_read_or_of_unknown_readability_brings_no_warning(
    values: list[float],
) -> None:
    counted = UnreadDocuments()
    counted.add("en", values, "some/model")
    assert counted.warnings() == []


def test_unread_documents_are_counted_by_language_in_one_warning() -> None:
    counted = UnreadDocuments()
    counted.add("en", [0.95], "some/model")
    counted.add("ru", [0.0, 0.1], "some/model")
    counted.add("ar", [0.1], "some/model")
    (warning,) = counted.warnings()
    assert "some/model hardly reads 2 of 3 documents (language: ar, ru)" in warning
    assert "RAGLAN_EMBEDDER_MODEL" in warning


def test_an_unread_document_in_a_read_language_names_no_language() -> None:
    """Unread document in a language of the model is not blamed on its language."""
    counted = UnreadDocuments()
    counted.add("en", [0.1], "some/model")
    (warning,) = counted.warnings()
    assert "does not read the language" not in warning
    assert "texts of codes and numbers" in warning
