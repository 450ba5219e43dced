"""When to say that the embedding model does not read a document."""

from __future__ import annotations

import pytest
from raglan_ingester.unread_language import unread_language_warning


@pytest.mark.parametrize("values", [[], [0.9], [0.2, 0.95, 0.95]])
def test_what_is_read_or_unknown_brings_no_warning(values: list[float]) -> None:
    assert unread_language_warning(values, "some/model") is None


def test_an_unread_language_is_named_with_the_way_out() -> None:
    warning = unread_language_warning([0.0, 0.1], "some/model")
    assert warning is not None
    assert "some/model does not read" in warning
    assert "readability 0.05" in warning
    assert "RAGLAN_EMBEDDER_MODEL" in warning
