"""Source code and configuration: stored as it is, cut into its top-level parts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from raglan.blocks import Block, BlockKind

from raglan_ingester.parsers.decoding import declared_in_html, declared_in_media_type, decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source

_PART_END: Final = re.compile(r"\n[^\S\n]*\n(?=[^\s)\]}])")
"""A blank line, and behind it a line that is not indented and closes nothing."""
_LANGUAGES: Final = {
    "py": "python",
    "pyi": "python",
    "js": "javascript",
    "mjs": "javascript",
    "jsx": "javascript",
    "ts": "typescript",
    "tsx": "typescript",
    "rb": "ruby",
    "rs": "rust",
    "sh": "bash",
    "kt": "kotlin",
    "kts": "kotlin",
    "cs": "csharp",
    "yml": "yaml",
    "h": "c",
    "cc": "cpp",
    "hpp": "cpp",
    "cxx": "cpp",
    "ps1": "powershell",
    "tf": "hcl",
}


def parse(source: Source) -> ParsedDocument:
    """Read a file of source code.

    Raises:
        Unparsable: it is empty or no text.
    """
    suffix = PurePosixPath(source.filename).suffix.lower().removeprefix(".")
    is_xml = suffix == "xml" or "xml" in source.media_type
    declared = (declared_in_html if is_xml else _declared)(source.data, source.media_type)
    decoded = decode_text(source.data, declared)
    text = decoded.text
    language = _LANGUAGES.get(suffix, suffix)
    blocks = []
    start = 0
    for end in [*(match.start() for match in _PART_END.finditer(text)), len(text)]:
        part = text[start:end]
        if stripped := part.strip("\n").rstrip():
            first = start + part.index(stripped)
            blocks.append(Block(BlockKind.CODE, first, first + len(stripped), label=language))
        start = end
    return ParsedDocument("", text, blocks=blocks, warnings=decoded.warnings)


def _declared(_: bytes, media_type: str) -> str:
    return declared_in_media_type(media_type)
