"""Previews of chunks on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from raglan.identifiers import check_collection_name
from raglan.rpc import pages
from raglan.v1 import ingester_pb2

from raglan_ingester.chunk_preview import Preview, PreviewStart
from raglan_ingester.parsing import CutDocument


def start_from_proto(
    header: ingester_pb2.PreviewHeader, qualified: Callable[[str], str]
) -> PreviewStart:
    """Convert the header of a preview. Raises InvalidInput."""
    name = header.collection
    return PreviewStart(
        collection=qualified(check_collection_name(name)) if name else "",
        filename=header.filename,
        media_type=header.media_type,
        title=header.title,
        strategy=header.strategy,
        max_chars=header.max_chars,
        overlap_chars=header.overlap_chars,
    )


def preview_to_proto(preview: Preview, limit: int) -> ingester_pb2.PreviewChunksResponse:
    """Convert a preview, with its first `limit` chunks as far as they fit into a message."""
    cut = preview.cut
    return ingester_pb2.PreviewChunksResponse(
        strategy=preview.settings.strategy,
        max_chars=preview.settings.max_chars,
        overlap_chars=preview.settings.overlap_chars,
        title=cut.title,
        language=cut.language,
        chars=len(cut.text),
        chunk_count=len(cut.chunks),
        chunks=pages.first_page(_chunks(cut, limit)),
        warnings=cut.warnings,
    )


def _chunks(cut: CutDocument, limit: int) -> Iterator[ingester_pb2.PreviewedChunk]:
    for chunk in cut.chunks[:limit]:
        yield ingester_pb2.PreviewedChunk(
            text=cut.text[chunk.start : chunk.end],
            start=chunk.start,
            end=chunk.end,
            heading_path=chunk.heading_path,
            page=chunk.page,
            metadata_json=json.dumps(chunk.metadata) if chunk.metadata else "",
        )
