"""Fingerprints of documents: equal for what would give the same chunks with the same vectors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from typing import Final

from raglan.chunking_strategy import STRUCTURE

from raglan_ingester.clients.embedder import NO_FURTHER_VECTORS
from raglan_ingester.clients.retriever import CollectionSettings
from raglan_ingester.model import Item

PIPELINE_VERSION: Final = 3
"""Raise it when the same bytes would now give other chunks: unchanged documents are then redone."""


def fingerprint(item: Item, settings: CollectionSettings, number: int = 0) -> str:
    """Return the fingerprint of a submission.

    Args:
        item: the submission.
        settings: of its collection.
        number: of the version, where the collection keeps them: a text that comes back is another
            version, with chunks of its own.
    """
    decides = [
        PIPELINE_VERSION,
        *(item.sha256, item.title, item.metadata_json, item.filename, item.media_type),
        *(settings.max_chars, settings.overlap_chars),
        *(settings.model.id, settings.model.revision, settings.model.dimension),
    ]
    if settings.strategy != STRUCTURE:  # as before there were others
        decides.append(settings.strategy)
    if settings.further != NO_FURTHER_VECTORS:
        decides += astuple(settings.further)
    if settings.contextual:
        decides.append("contextual")
    if number > 1:
        decides.append(number)
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()
