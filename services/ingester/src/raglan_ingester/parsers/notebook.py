"""Jupyter notebooks: Markdown cells, code, and the text of outputs."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from raglan_ingester.parsers import markdown
from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from raglan_ingester.parsers.text_builder import TextBuilder

_MAX_OUTPUT_CHARS: Final = 4_000
"""Of one cell: what is longer is a log or data, not something to read."""
_MAX_OUTPUTS_CHARS: Final = 1_000_000
"""Of all cells together."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def parse(source: Source) -> ParsedDocument:
    """Read a notebook (nbformat 3 or 4).

    Raises:
        Unparsable: it is empty, no text, or no notebook.
    """
    decoded = decode_text(source.data)
    try:
        notebook = json.loads(decoded.text)
    except json.JSONDecodeError as error:
        raise Unparsable(f"The notebook is not valid JSON: {error.msg}.") from None
    if not isinstance(notebook, dict) or not isinstance(_cells(notebook), list):
        raise Unparsable("The file is not a notebook: it has no cells.")
    reader = _Reader(str(_language(notebook)))
    reader.builder.warnings += decoded.warnings
    for cell in _cells(notebook):
        if isinstance(cell, dict):
            reader.add(cell)
    if reader.cut:
        reader.builder.warnings.append(
            f"Outputs longer than {_MAX_OUTPUT_CHARS:,} characters were cut: {reader.cut}."
        )
    return reader.builder.build(reader.title)


class _Reader:
    def __init__(self, language: str) -> None:
        self.builder = TextBuilder()
        self.title = ""
        self.cut = 0
        """Outputs that were shortened or left out."""
        self._language = language
        self._outputs_left = _MAX_OUTPUTS_CHARS

    def add(self, cell: dict[str, Any]) -> None:
        """Append a cell and its outputs."""
        kind = cell.get("cell_type")
        text = _joined(cell.get("source", cell.get("input")))
        if kind == "code":
            self.builder.code(text, self._language)
            for output in cell.get("outputs") or ():
                if isinstance(output, dict):
                    self._output(output)
        elif kind in ("markdown", "heading") and text.strip():
            mark = "#" * _heading_level(cell) + " " if kind == "heading" else ""
            parsed = markdown.parse(Source(f"{mark}{text}".encode("utf-8", "replace")))
            self.title = self.title or parsed.title
            self.builder.embed(parsed, 0)
        else:
            self.builder.paragraph(text)

    def _output(self, output: dict[str, Any]) -> None:
        data = output.get("data", output)
        if output.get("output_type") in ("error", "pyerr"):
            text = f"{output.get('ename', '')}: {_joined(output.get('evalue'))}"
        elif output.get("output_type") == "stream":
            text = _joined(output.get("text"))
        else:
            text = _joined(data.get("text/plain", data.get("text")) if data else "")
        limit = min(_MAX_OUTPUT_CHARS, self._outputs_left)
        self.cut += len(text) > limit
        text = _COLOUR.sub("", text[:limit])
        self._outputs_left -= len(text)
        self.builder.code(text, "output")


def _cells(notebook: dict[str, Any]) -> Any:
    sheets = notebook.get("worksheets")
    if isinstance(sheets, list) and sheets and isinstance(sheets[0], dict):
        return sheets[0].get("cells")
    return notebook.get("cells")


def _language(notebook: dict[str, Any]) -> Any:
    metadata = notebook.get("metadata")
    info = metadata.get("language_info") if isinstance(metadata, dict) else None
    return info.get("name", "python") if isinstance(info, dict) else "python"


def _heading_level(cell: dict[str, Any]) -> int:
    level = cell.get("level", 1)
    return min(max(level, 1), 6) if isinstance(level, int) else 1


def _joined(source: Any) -> str:
    """Text of a notebook: a string, or a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""
