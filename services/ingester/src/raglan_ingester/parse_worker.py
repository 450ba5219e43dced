"""The parser process: `python -I -m raglan_ingester.parse_worker MEMORY_BYTES CPU_S [FOLDER ...]`.

Reads requests from stdin and writes replies to stdout, each a 4-byte big-endian length and JSON; a
request is followed by the document's bytes. JSON, not pickle: the reply comes from a process that
strangers' documents may have taken over. The first reply is made unasked, and tells by what the
process is confined.

    {"confinement": [mechanism, ...]}
    {"size", "filename", "media_type", "title", "strategy", "max_chars", "overlap_chars",
     "max_tokens", "max_chunks", "tokenizer", "cuts": [offset, ...], "units"}
    {"title", "text", "language", "metadata", "warnings", "structure",
     "chunks": [[start, end, [heading, ...], page, structure, metadata], ...]}
    or {"error": sentence}

A structure is that of `raglan.blocks.to_bytes`, in base64.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from raglan.blocks import Block, to_bytes
from raglan.language import detect_document

from raglan_ingester import parsers
from raglan_ingester.chunking import Sizes, chunk, find_units
from raglan_ingester.confinement import allow_cpu, confine, quiet_standard_streams
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from raglan_ingester.token_index import TokenIndex, load_tokenizer

_LANGUAGE_CHARS: Final = 20_000
"""Enough to tell the language of a document."""

OUT_OF_MEMORY: Final = 3
"""Exit status of a worker whose document needed more memory than there is."""


def main() -> None:
    """Serve parse requests on the standard streams until they close."""
    memory_bytes, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    requests, replies = quiet_standard_streams()
    detect_document("Its library looks for a folder to write to when it is loaded.")
    confinement = confine(memory_bytes, map(Path, sys.argv[3:]))
    with os.fdopen(requests, "rb") as incoming, os.fdopen(replies, "wb") as outgoing:
        _send(outgoing, {"confinement": confinement})
        while (request := _receive(incoming)) is not None:
            allow_cpu(cpu_s)
            try:
                _send(outgoing, _answer(request, incoming.read(request["size"])))
            except MemoryError:
                # The heap is in pieces: a fresh process is cheaper than a second surprise.
                os._exit(OUT_OF_MEMORY)


def _answer(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    try:
        parsed = parsers.parse(
            Source(data, request["filename"], request["media_type"]), request["strategy"]
        )
        if request["title"]:
            parsed = dataclasses.replace(parsed, title=request["title"])
        if request["cuts"]:
            parsed = dataclasses.replace(parsed, cuts=request["cuts"])
        return _reply(parsed, request)
    except Unparsable as error:
        return {"error": str(error)}
    except MemoryError:
        raise
    except RecursionError:
        return {"error": "The document is nested too deeply to be read."}
    except Exception as error:  # noqa: BLE001 - whatever a library throws at a broken document
        return {"error": f"The document is broken and cannot be read ({type(error).__name__})."}


def _reply(parsed: ParsedDocument, request: dict[str, Any]) -> dict[str, Any]:
    language = detect_document(parsed.text[:_LANGUAGE_CHARS])
    tokens = None
    if request["tokenizer"]:
        tokens = TokenIndex(load_tokenizer(Path(request["tokenizer"])), parsed.text)
    sizes = Sizes(
        request["max_chars"],
        request["overlap_chars"],
        request["max_tokens"],
        request["max_chunks"],
    )
    cut = find_units if request["units"] else chunk
    return {
        "title": parsed.title,
        "text": parsed.text,
        "language": language,
        "metadata": parsed.metadata,
        "warnings": parsed.warnings,
        "structure": _packed(parsed.blocks),
        "chunks": [
            [
                piece.start,
                piece.end,
                piece.heading_path,
                piece.page,
                _packed(piece.blocks),
                piece.metadata,
                piece.section,
            ]
            for piece in cut(parsed, sizes, tokens, language, request["strategy"])
        ],
    }


def _packed(blocks: Sequence[Block]) -> str:
    return base64.b64encode(to_bytes(blocks)).decode()


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    body = stream.read(int.from_bytes(header, "big"))
    loaded: dict[str, Any] = json.loads(body)
    return loaded


def _send(stream: BinaryIO, reply: dict[str, Any]) -> None:
    body = json.dumps(reply, ensure_ascii=False).encode()
    stream.write(len(body).to_bytes(4, "big"))
    stream.write(body)
    stream.flush()


if __name__ == "__main__":
    main()
