"""Blocks of neighbouring pieces of a text, joined so that a block cut between them is whole."""

from __future__ import annotations

from dataclasses import replace

from raglan.blocks import Block, BlockKind


def moved(block: Block, by: int) -> Block:
    """Return the block in a text that has `by` more characters before it."""
    rows = tuple(
        tuple(cell._replace(start=cell.start + by, end=cell.end + by) for cell in row)
        for row in block.rows
    )
    return replace(block, start=block.start + by, end=block.end + by, rows=rows)


def add_piece(blocks: list[Block], block: Block, gap: int = 1) -> None:
    """Join `block` with the one of `blocks` that it continues or repeats, or add it.

    Args:
        blocks: of the text so far.
        block: of the text after it, moved.
        gap: most characters between two pieces of one block.
    """
    for position in range(len(blocks) - 1, -1, -1):
        known = blocks[position]
        if _same(known, block, gap):
            blocks[position] = _union(known, block)
            return
    blocks.append(block)


def _same(known: Block, block: Block, gap: int) -> bool:
    """Return whether both are pieces of one block, or the same block seen in two passages."""
    if known.kind is not block.kind or known.level != block.level:
        return False
    if block.kind is BlockKind.PAGE_BREAK:
        return known.start == block.start
    if block.cut_start:
        return known.cut_end and known.start <= block.start <= known.end + gap
    return known.start == block.start


def _union(known: Block, block: Block) -> Block:
    end = max(known.end, block.end)
    rows = {row[0].start: row for row in (*block.rows, *known.rows) if row}
    return replace(
        known,
        end=end,
        cut_end=block.cut_end if block.end >= known.end else known.cut_end,
        rows=tuple(rows[start] for start in sorted(rows)),
    )
