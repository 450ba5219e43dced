"""What decides the chunks and vectors of a document, as one digest."""

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


def fingerprint(item: Item, settings: CollectionSettings) -> str:
    """Return the same for two submissions that would give the same chunks and vectors."""
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
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()
