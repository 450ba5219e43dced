"""The guide for newcomers tells what the code does."""

from __future__ import annotations

from pathlib import Path

from raglan_ingester import parsers

GUIDE = Path(__file__).parents[3] / "docs" / "guide.md"


def test_every_format_is_named() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    source_code = set(parsers._SOURCE_CODE.split())
    missing = [
        f".{suffix}"
        for suffix in parsers.BY_SUFFIX
        if suffix not in source_code and f"`.{suffix}`" not in guide
    ]
    assert missing == []
