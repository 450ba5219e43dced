from __future__ import annotations

import pytest
from raglan.chunk_text import in_context


@pytest.mark.parametrize(
    ("title", "headings", "expected"),
    [
        ("Guide", ("Setup", "GPU"), "Guide\nSetup > GPU\nPin it."),
        ("Guide", (), "Guide\nPin it."),
        ("", (), "Pin it."),
        ("Setup", ("Setup", "GPU"), "Setup > GPU\nPin it."),
    ],
)
def test_a_chunk_is_read_below_its_title_and_headings(
    title: str, headings: tuple[str, ...], expected: str
) -> None:
    assert in_context(title, headings, "Pin it.") == expected
