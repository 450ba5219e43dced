"""Parsing in tests, and what to hold against a parsed document."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import pytest
from raglan.blocks import BlockKind
from raglan_ingester.parsers import parse
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable


def read(name: str, data: bytes | str, media_type: str = "") -> ParsedDocument:
    """Parse, and check what every document must keep to."""
    parsed = parse(Source(data.encode() if isinstance(data, str) else data, name, media_type))
    check_offsets(parsed)
    return parsed


def refusal(name: str, data: bytes, media_type: str = "") -> str:
    """The sentence with which a document is refused."""
    with pytest.raises(Unparsable) as caught:
        read(name, data, media_type)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def check_offsets(parsed: ParsedDocument) -> None:
    """Blocks come in order, lie inside the text, and none but page breaks is blank."""
    starts = [block.start for block in parsed.blocks]
    assert starts == sorted(starts)
    assert [heading.offset for heading in parsed.headings] == sorted(
        heading.offset for heading in parsed.headings
    )
    for block in parsed.blocks:
        assert 0 <= block.start <= block.end <= len(parsed.text)
        if block.kind is not BlockKind.PAGE_BREAK:
            assert parsed.text[block.start : block.end].strip()
        for row in block.rows:
            for cell in row:
                assert block.start <= cell.start <= cell.end <= block.end
                assert (
                    parsed.text[cell.start : cell.end].strip()
                    == (parsed.text[cell.start : cell.end])
                )


def blocks(parsed: ParsedDocument, *kinds: BlockKind) -> list[str]:
    """The texts of all blocks of these kinds."""
    return [parsed.text[b.start : b.end] for b in parsed.blocks if b.kind in kinds]


def paragraphs(parsed: ParsedDocument) -> list[str]:
    return blocks(parsed, BlockKind.PARAGRAPH)


def items(parsed: ParsedDocument) -> list[tuple[int, str, str]]:
    """(depth, label, first line without its mark) of each list item."""
    found = []
    for number, block in enumerate(parsed.blocks):
        if block.kind is BlockKind.LIST_ITEM:
            inner = parsed.blocks[number + 1]
            text = parsed.text[inner.start : inner.end].partition("\n")[0]
            found.append((block.level, block.label, text))
    return found


def tables(parsed: ParsedDocument) -> list[tuple[bool, list[list[str]]]]:
    """(the first row is a header, rows of cell texts) of each table."""
    return [
        (
            block.has_header,
            [[parsed.text[cell.start : cell.end] for cell in row] for row in block.rows],
        )
        for block in parsed.blocks
        if block.kind is BlockKind.TABLE
    ]


def headings(parsed: ParsedDocument) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in parsed.headings]


def pages(parsed: ParsedDocument) -> list[tuple[int, str]]:
    """(page, the text from there to the end of its line)."""
    return [
        (block.page, parsed.text[block.start :].partition("\n")[0])
        for block in parsed.blocks
        if block.kind is BlockKind.PAGE_BREAK
    ]


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    """A zip file of these parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in parts.items():
            zipped.writestr(name, content)
    return buffer.getvalue()
