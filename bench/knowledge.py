"""The figures of documents that grow and change, on meshes of its own: `make bench-knowledge`.

    python bench/knowledge.py [documents] [chunking] [logs] [sources] [multivectors] [scale] [bulk]

Without names, all of them, which end in `bench/results/knowledge.json`; with names, each in
`bench/results/knowledge-<name>.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import knowledge_bulk
import knowledge_chunking
import knowledge_documents
import knowledge_scale
import knowledge_sources
import knowledge_vectors
from report import Row, publish

PARTS: Final[dict[str, Callable[[], list[Row]]]] = {
    "documents": knowledge_documents.documents,
    "chunking": knowledge_chunking.chunking,
    "logs": knowledge_chunking.logs,
    "sources": knowledge_sources.sources,
    "multivectors": knowledge_vectors.multivectors,
    "scale": knowledge_scale.scale,
    "bulk": knowledge_bulk.bulk,
}


def main() -> None:
    """Measure what the command line names."""
    if unknown := set(sys.argv[1:]) - set(PARTS):
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    if not sys.argv[1:]:
        publish("knowledge", [row for measure in PARTS.values() for row in measure()])
    for name in sys.argv[1:]:
        publish(f"knowledge-{name}", PARTS[name]())


if __name__ == "__main__":
    main()
