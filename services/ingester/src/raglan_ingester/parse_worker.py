"""The parser process: `python -I -m raglan_ingester.parse_worker MEMORY_BYTES CPU_S`.

Reads requests from stdin and writes replies to stdout, each a 4-byte big-endian length and JSON.
JSON, not pickle: the reply comes from a process that strangers' documents may have taken over.

    {"path", "filename", "media_type", "max_chars", "overlap_chars"}
    {"title", "text", "chunks": [[start, end, [heading, ...]], ...]}  or  {"error": sentence}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from raglan_ingester import parsers
from raglan_ingester.chunking import chunk
from raglan_ingester.confinement import allow_cpu, confine, quiet_standard_streams
from raglan_ingester.parsers.parsed import Source, Unparsable

OUT_OF_MEMORY: Final = 3
"""Exit status of a worker whose document needed more memory than there is."""


def main() -> None:
    memory_bytes, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    requests, replies = quiet_standard_streams()
    confine(memory_bytes)
    with os.fdopen(requests, "rb") as incoming, os.fdopen(replies, "wb") as outgoing:
        while (request := _receive(incoming)) is not None:
            allow_cpu(cpu_s)
            try:
                _send(outgoing, _answer(request))
            except MemoryError:
                # The heap is in pieces: a fresh process is cheaper than a second surprise.
                os._exit(OUT_OF_MEMORY)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        data = Path(request["path"]).read_bytes()
        parsed = parsers.parse(Source(data, request["filename"], request["media_type"]))
        spans = chunk(
            parsed.text,
            parsed.headings,
            max_chars=request["max_chars"],
            overlap_chars=request["overlap_chars"],
        )
    except Unparsable as error:
        return {"error": str(error)}
    except MemoryError:
        raise
    except RecursionError:
        return {"error": "The document is nested too deeply to be read."}
    except Exception as error:  # noqa: BLE001 - whatever a library throws at a broken document
        return {"error": f"The document is broken and cannot be read ({type(error).__name__})."}
    chunks = [[span.start, span.end, list(span.heading_path)] for span in spans]
    return {"title": parsed.title, "text": parsed.text, "chunks": chunks}


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
