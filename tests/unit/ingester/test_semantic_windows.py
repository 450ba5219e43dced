"""Texts that are compared to find where the subject changes."""

from __future__ import annotations

from raglan_ingester.parsing import CutChunk, CutDocument
from raglan_ingester.semantic_cuts import _windows


def test_no_window_is_empty_where_units_are_not_in_order() -> None:
    spans = [(0, 5), (30, 40), (6, 12), (13, 20), (21, 29)]
    document = CutDocument("", "word " * 8, [CutChunk(start, end) for start, end in spans])
    assert all(window.strip() for window in _windows(document))
