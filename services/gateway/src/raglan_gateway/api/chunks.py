"""`/v1/chunks`: how a file would be cut, before anything of it is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from raglan.chunking_strategy import STRUCTURE, ChunkingStrategy
from raglan.deadline import Deadline
from raglan.errors import InvalidInput
from raglan.identifiers import shortened
from raglan.v1 import ingester_pb2
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from raglan_gateway.api import schemas
from raglan_gateway.api.documents import PIECE_BYTES
from raglan_gateway.mesh import Mesh

MAX_CHUNKS: Final = 1_000
_TIMEOUT_S: Final = 300.0
"""The longest that a document may wait for a parser and be parsed."""
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            }
        },
    }
}


class PreviewedChunk(schemas.Described):
    """A chunk as it would be made, with its offsets in the document's text."""

    text: str
    start: int
    end: int
    heading_path: list[str]
    page: int | None
    metadata: dict[str, Any]
    """Besides that of the document, such as times and levels of log entries."""


class ChunkPreview(schemas.Described):
    """A document cut into chunks, of which nothing was stored."""

    chunking: dict[str, int | str]
    title: str
    language: str
    chars: int
    chunk_count: int
    """In all. `chunks` holds the first of them."""
    chunks: list[PreviewedChunk]
    warnings: list[str]


def router(mesh: Mesh) -> APIRouter:
    """The route of previews."""
    routes = APIRouter(prefix="/v1/chunks", tags=["documents"])

    @routes.post("", openapi_extra=_BODY)
    async def preview_chunks(
        request: Request,
        collection: schemas.CollectionName | None = None,
        strategy: ChunkingStrategy | None = None,
        max_chars: Annotated[int | None, Query(ge=100, le=20_000)] = None,
        overlap_chars: Annotated[int, Query(ge=0, le=10_000)] = 0,
        limit: Annotated[int, Query(ge=0, le=MAX_CHUNKS)] = 100,
    ) -> ChunkPreview:
        """Cut one file into chunks and show them; nothing is stored.

        What is not given is that of `collection`, if that is given, else the default.
        """
        if overlap_chars and max_chars is None:
            raise InvalidInput("overlap_chars needs max_chars; give both.")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "multipart/form-data":
            raise HTTPException(
                415,
                f"The content type is {shortened(media_type)}; send multipart/form-data with "
                "one file in `files`",
            )
        header = ingester_pb2.PreviewHeader(
            collection=collection or "",
            strategy=strategy or "",
            max_chars=max_chars or 0,
            overlap_chars=overlap_chars,
            limit=limit,
        )
        async with request.form(max_files=1, max_fields=0) as form:
            file = form.get("files")
            if not isinstance(file, UploadFile):
                raise InvalidInput("The form holds no file in the field `files`.")
            header.filename = (file.filename or "").replace("\0", "")
            header.media_type = file.content_type or ""
            found: ingester_pb2.PreviewChunksResponse = await mesh.ingester.call(
                "PreviewChunks",
                _messages(header, file),
                deadline=Deadline.after(_TIMEOUT_S),
                retry=False,
            )
        # Thousands of chunks are built and checked: not on the event loop.
        return await asyncio.to_thread(_reply, found)

    return routes


async def _messages(
    header: ingester_pb2.PreviewHeader, file: UploadFile
) -> AsyncIterator[ingester_pb2.PreviewChunksRequest]:
    yield ingester_pb2.PreviewChunksRequest(header=header)
    while data := await file.read(PIECE_BYTES):
        yield ingester_pb2.PreviewChunksRequest(data=data)


def _reply(found: ingester_pb2.PreviewChunksResponse) -> ChunkPreview:
    return ChunkPreview(
        chunking={
            "max_chars": found.max_chars,
            "overlap_chars": found.overlap_chars,
            "strategy": found.strategy or STRUCTURE,
        },
        title=found.title,
        language=found.language,
        chars=found.chars,
        chunk_count=found.chunk_count,
        chunks=[_chunk(chunk) for chunk in found.chunks],
        warnings=list(found.warnings),
    )


def _chunk(chunk: ingester_pb2.PreviewedChunk) -> PreviewedChunk:
    metadata: dict[str, Any] = json.loads(chunk.metadata_json or "{}")
    return PreviewedChunk(
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        heading_path=list(chunk.heading_path),
        page=chunk.page or None,
        metadata=metadata,
    )
