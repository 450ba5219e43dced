"""Ids of chunks: document, version and position, so that each names its neighbours."""

from __future__ import annotations

from typing import Final

_VERSION_CHARS: Final = 12


def chunk_id(document_id: str, fingerprint: str, ordinal: int) -> str:
    """Names a place in a version: indexing twice changes nothing, two versions never mix."""
    return f"{document_id}#{fingerprint[:_VERSION_CHARS]}.{ordinal}"


def version_of(id_: str, ordinal: int) -> str:
    """Return what the ids of all chunks of one version of a document begin with.

    Args:
        id_: of a chunk.
        ordinal: its position in the document.

    Returns:
        Empty where the id is not one of `chunk_id`, and so names no neighbours.
    """
    suffix = f".{ordinal}"
    return id_.removesuffix(suffix) if id_.endswith(suffix) else ""


def in_version(version: str, ordinal: int) -> str:
    """Return the id of the chunk at a position of a version; see `version_of`."""
    return f"{version}.{ordinal}"
