"""Documents and their versions on the wire."""

from __future__ import annotations

from typing import Final

from raglan import tenancy
from raglan.v1 import ingester_pb2

from raglan_ingester.model import Document, DocumentState, EarlierVersion

_STATES: Final = {
    DocumentState.QUEUED: ingester_pb2.DOCUMENT_STATUS_QUEUED,
    DocumentState.READY: ingester_pb2.DOCUMENT_STATUS_READY,
    DocumentState.FAILED: ingester_pb2.DOCUMENT_STATUS_FAILED,
}


def document_to_proto(row: Document, *, text: str = "") -> ingester_pb2.Document:
    """Convert a document as it is now."""
    message = ingester_pb2.Document(
        id=row.id,
        collection=tenancy.split(row.collection)[1],
        title=row.title,
        text=text,
        metadata_json=row.metadata_json,
        filename=row.filename,
        media_type=row.media_type,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        status=_STATES[DocumentState(row.state)],
        chunks=row.chunks if row.state == DocumentState.READY else 0,
        error=row.error,
        access=row.access,
        version=row.version,
    )
    message.created_at.FromMilliseconds(row.created_ms)
    if row.version:
        message.valid_from.FromMilliseconds(row.valid_from_ms)
    return message


def version_to_proto(
    row: Document, version: EarlierVersion, *, text: str = ""
) -> ingester_pb2.Document:
    """Convert an earlier version of the document `row`."""
    message = ingester_pb2.Document(
        id=row.id,
        collection=tenancy.split(row.collection)[1],
        title=version.title,
        text=text,
        metadata_json=version.metadata_json,
        filename=version.filename,
        media_type=version.media_type,
        sha256=version.sha256,
        size_bytes=version.size_bytes,
        status=ingester_pb2.DOCUMENT_STATUS_READY,
        chunks=version.chunks,
        access=version.access,
        version=version.number,
        language=version.language,
    )
    message.created_at.FromMilliseconds(row.created_ms)
    message.valid_from.FromMilliseconds(version.valid_from_ms)
    message.valid_to.FromMilliseconds(version.valid_to_ms)
    return message
