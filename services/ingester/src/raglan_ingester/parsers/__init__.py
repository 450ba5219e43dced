"""Formats and what reads them: one table by file name, one by media type, one module a format.

Parsers are imported when first used: each brings a library of its own, and a worker that only sees
Markdown never pays for the others. They run inside `raglan_ingester.parse_worker`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final, cast

from raglan.chunking_strategy import STRUCTURE, ChunkingStrategy

from raglan_ingester.cuts import at_questions, at_rows
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable

_SOURCE_CODE: Final = (
    "bash bat c cc cfg clj cmake conf cpp cs css cxx dart env erl ex exs fish fs go gql gradle "
    "graphql groovy h hcl hpp hs ini java jl js jsx kt kts less lua m mjs ml nix php pl pm "
    "properties proto ps1 py pyi r rb rs sass scala scss sh sol sql svelte swift tex tf toml ts "
    "tsx vb vue xml yaml yml zig zsh"
)
BY_SUFFIX: Final[dict[str, str]] = {
    "txt": "text",
    "text": "text",
    "log": "text",
    "rst": "rst",
    "rest": "rst",
    "adoc": "asciidoc",
    "asciidoc": "asciidoc",
    "asc": "asciidoc",
    "org": "org",
    "md": "markdown",
    "markdown": "markdown",
    "mdx": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "pdf": "pdf",
    "docx": "docx",
    "docm": "docx",
    "dotx": "docx",
    "pptx": "pptx",
    "pptm": "pptx",
    "ppsx": "pptx",
    **dict.fromkeys(("xlsx", "xlsm", "xlsb", "xls", "ods"), "spreadsheet"),
    "odt": "odt",
    "ott": "odt",
    "epub": "epub",
    "rtf": "rtf",
    "eml": "eml",
    "ipynb": "notebook",
    "srt": "subtitles",
    "vtt": "subtitles",
    "json": "json_records",
    "jsonl": "json_lines",
    "ndjson": "json_lines",
    "csv": "csv_rows",
    "tsv": "csv_rows",
    **dict.fromkeys(_SOURCE_CODE.split(), "code"),
}
BY_NAME: Final[dict[str, str]] = {
    **dict.fromkeys(("readme", "license", "changelog"), "text"),
    **dict.fromkeys(("dockerfile", "makefile", "justfile", ".gitignore"), "code"),
}
BY_MEDIA_TYPE: Final[dict[str, str]] = {
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-word.document.macroenabled.12": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "spreadsheet",
    "application/vnd.ms-excel.sheet.macroenabled.12": "spreadsheet",
    "application/vnd.oasis.opendocument.spreadsheet": "spreadsheet",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/epub+zip": "epub",
    "application/rtf": "rtf",
    "text/rtf": "rtf",
    "message/rfc822": "eml",
    "application/x-ipynb+json": "notebook",
    "application/x-subrip": "subtitles",
    "text/vtt": "subtitles",
    "text/x-rst": "rst",
    "text/prs.fallenstein.rst": "rst",
    "text/org": "org",
    "text/x-org": "org",
    "text/asciidoc": "asciidoc",
    "application/json": "json_records",
    "application/jsonl": "json_lines",
    "application/x-ndjson": "json_lines",
    "text/csv": "csv_rows",
    "text/tab-separated-values": "csv_rows",
    "text/plain": "text",
    "application/xml": "code",
    "application/yaml": "code",
    "application/toml": "code",
    "application/javascript": "code",
    "application/sql": "code",
}
SUPPORTED: Final = (
    "txt, md, html, pdf, docx, pptx, xlsx, odt, epub, rtf, eml, ipynb, rst, org, asciidoc, csv, "
    "json, jsonl, srt, vtt and source code"
)
_OLD_FORMATS: Final = {
    "doc": "docx",
    "dot": "docx",
    "ppt": "pptx",
    "pages": "docx",
    "key": "pptx",
    "numbers": "xlsx",
    "msg": "eml",
    "mobi": "epub",
    "odp": "pptx",
}
"""Suffixes of formats that are not read, and what to save them as."""


_BY_STRATEGY: Final[dict[str, tuple[str, frozenset[str]]]] = {
    ChunkingStrategy.LOG: ("log", frozenset({"text", "json_lines"})),
    ChunkingStrategy.CODE: ("syntax", frozenset({"code"})),
}
"""Strategy -> the parser that it needs, and those that this one takes the place of."""
_RECORDS: Final = frozenset({"csv_rows", "json_lines", "json_records", "spreadsheet"})


def parse(source: Source, strategy: str = STRUCTURE) -> ParsedDocument:
    """Read a document with the parser of its format and of the strategy that will cut it.

    Raises:
        Unparsable: no parser knows the format, the document is broken, or holds no text.
    """
    name = format_of(source)
    special, replaced = _BY_STRATEGY.get(strategy, (name, frozenset()))
    module = importlib.import_module(f"{__name__}.{special if name in replaced else name}")
    parsed = cast("Callable[[Source], ParsedDocument]", module.parse)(source)
    if not parsed.text.strip():
        raise Unparsable("The document holds no text.")
    match strategy:
        case ChunkingStrategy.QA:
            return at_questions(parsed)
        case ChunkingStrategy.TABLE:
            return at_rows(parsed, is_records=name in _RECORDS)
    return parsed


def format_of(source: Source) -> str:
    """The parser module for a document: by its media type where that is telling, else its name.

    Browsers and curl call what they do not know `application/octet-stream` or `text/plain`, so
    those two never overrule a known file name.
    """
    name = PurePosixPath(source.filename).name.lower()
    suffix = PurePosixPath(name).suffix.removeprefix(".")
    by_name = BY_SUFFIX.get(suffix) or BY_NAME.get(name)
    media_type = source.media_type.partition(";")[0].strip().lower()
    by_type = BY_MEDIA_TYPE.get(media_type)
    if by_type is None and media_type.startswith("text/") and not suffix:
        by_type = "text"
    found = (by_name or by_type) if by_type in (None, "text") else by_type
    if found is None or (by_name is None and suffix and by_type == "text"):
        kind = f".{suffix}" if suffix else media_type or "no file name and no media type"
        if suffix in _OLD_FORMATS:
            raise Unparsable(
                f"Nothing reads this kind of file ({kind}); save it as {_OLD_FORMATS[suffix]}."
            )
        raise Unparsable(f"Nothing reads this kind of file ({kind}); supported are {SUPPORTED}.")
    return found
