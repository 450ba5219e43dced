"""Passages that follow each other in a document, joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from raglan.block_joining import add_piece, moved
from raglan.blocks import Block, from_bytes, to_bytes
from raglan.v1 import common_pb2

Passage = common_pb2.Passage


def joined(pieces: Sequence[Passage], best: Passage) -> Passage:
    """Return `pieces` as one passage with the id, the rank and the scores of the best of them.

    Args:
        pieces: in the order of the document; the text between two is `gap_before` of the second,
            or they overlap.
        best: one of them.

    Raises:
        ValueError: the structure of a piece cannot be read.
    """
    first = pieces[0]
    whole = Passage()
    whole.CopyFrom(best)
    for field in ("text", "heading_path", "structure", "matches", "parts"):
        whole.ClearField(field)
    text = ""
    blocks: list[Block] = []
    matches: set[int] = set()
    for piece in pieces:
        shift = piece.start - first.start
        gap = piece.gap_before if shift > len(text) else ""
        known = len(text)
        text += gap + piece.text[max(0, known - shift) :]
        for block in from_bytes(piece.structure):
            part = moved(block, shift)
            if part.cut_start or part.start < known:
                add_piece(blocks, part, max(1, len(gap)))
            else:
                blocks.append(part)
        matches.update(shift + at for at in piece.matches)
        whole.parts.add(chunk_id=piece.chunk_id, start=piece.start, end=piece.end)
    whole.text, whole.start, whole.end = text, first.start, first.start + len(text)
    whole.page = first.page
    whole.structure = to_bytes(sorted(blocks, key=lambda block: (block.start, -block.end)))
    whole.heading_path.extend(_common([piece.heading_path for piece in pieces]))
    whole.matches.extend(sorted(matches))
    whole.exact = any(piece.exact for piece in pieces)
    return whole


def part_at(passage: Passage, offset: int) -> common_pb2.PassagePart:
    """Return the chunk of a passage that holds the character at `offset` of the document."""
    own = common_pb2.PassagePart(chunk_id=passage.chunk_id, start=passage.start, end=passage.end)
    return next((part for part in reversed(passage.parts) if part.start <= offset), own)


def own_part(passage: Passage) -> common_pb2.PassagePart:
    """Return the chunk that the search found, of the text that a passage was joined to."""
    own = common_pb2.PassagePart(chunk_id=passage.chunk_id, start=passage.start, end=passage.end)
    return next((part for part in passage.parts if part.chunk_id == passage.chunk_id), own)


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    """Return the headings that all paths begin with."""
    columns = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return [names[0] for names in columns]
