"""The structure of a text: packed, unpacked and clipped to a piece of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.blocks import (
    Block,
    BlockKind,
    Cell,
    body_rows,
    clip,
    column_names,
    from_bytes,
    to_bytes,
)

TEXT = """\
# Rates

| Plan | Price |
|---|---|
| Small | 3 EUR |
| Large | 9 EUR |

To cancel:

1. Open the account.
2. Press *Cancel*.
"""


def cell(content: str) -> Cell:
    start = TEXT.index(content)
    return Cell(start, start + len(content))


TABLE = Block(
    BlockKind.TABLE,
    TEXT.index("| Plan"),
    TEXT.index("\n\nTo cancel"),
    rows=(
        (cell("Plan"), cell("Price")),
        (cell("Small"), cell("3 EUR")),
        (cell("Large"), cell("9 EUR")),
    ),
    has_header=True,
)
ITEM = Block(
    BlockKind.LIST_ITEM,
    TEXT.index("2. Press"),
    len(TEXT) - 1,
    level=1,
    label="2",
    lead_in="To cancel:",
)
BLOCKS = [Block(BlockKind.HEADING, 0, len("# Rates"), level=1), TABLE, ITEM]


def test_structure_survives_the_wire() -> None:
    pages = [Block(BlockKind.PAGE_BREAK, 3, 3, page=2), Block(BlockKind.CODE, 3, 9, label="sh")]
    assert from_bytes(to_bytes([*BLOCKS, *pages])) == (*BLOCKS, *pages)


def test_text_without_blocks_is_empty_on_the_wire() -> None:
    assert to_bytes([]) == b""
    assert from_bytes(b"") == ()


@pytest.mark.parametrize("bad", [b"\xff\xff\xff", b"not a structure at all"])
def test_bytes_that_are_no_structure_are_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        from_bytes(bad)


def test_piece_of_a_table_keeps_whole_rows_and_its_columns() -> None:
    start, end = TEXT.index("| Large"), TABLE.end
    piece = TEXT[start:end]
    (table,) = clip(TEXT, BLOCKS, start, end)
    assert table.cut_start
    assert not table.cut_end
    assert column_names(piece, table) == ("Plan", "Price")
    assert [[piece[c.start : c.end] for c in row] for row in body_rows(table)] == [
        ["Large", "9 EUR"]
    ]


def test_piece_with_the_header_names_its_columns_by_itself() -> None:
    end = TEXT.index("| Large")
    *_, table = clip(TEXT, BLOCKS, 0, end)
    assert table.has_header
    assert table.columns == ()
    assert table.cut_end
    assert len(body_rows(table)) == 1


def test_list_item_keeps_its_lead_in_where_the_list_is_cut() -> None:
    (item,) = clip(TEXT, BLOCKS, ITEM.start, ITEM.end)
    assert (item.start, item.lead_in, item.label) == (0, "To cancel:", "2")


@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
def test_clipped_offsets_point_at_the_same_characters(first: int, second: int) -> None:
    start, end = sorted((first, second))
    piece = TEXT[start:end]
    for block in clip(TEXT, BLOCKS, start, end):
        assert 0 <= block.start <= block.end <= len(piece)
        for row in block.rows:
            for at in row:
                assert TEXT[start + at.start : start + at.end] == piece[at.start : at.end]
    assert from_bytes(to_bytes(clip(TEXT, BLOCKS, start, end))) == tuple(
        clip(TEXT, BLOCKS, start, end)
    )
