"""Passages as results of OpenAI's file search."""

from __future__ import annotations

from typing import Any

from raglan_gateway.api import schemas


def search_result(passage: schemas.Passage) -> dict[str, Any]:
    """Build a result: the document is the file, its metadata the attributes."""
    return {
        "file_id": passage.document_id,
        "filename": passage.title or passage.document_id,
        "score": score(passage.scores),
        "text": passage.text,
        "attributes": attributes(passage.metadata),
    }


def score(scores: schemas.Scores) -> float:
    """Return the relevance of a passage, in [0, 1], by the best scorer that saw it."""
    found = (scores.rerank, scores.dense, scores.fused, scores.lexical)
    return min(1.0, max(0.0, next((each for each in found if each is not None), 0.0)))


def attributes(metadata: dict[str, Any]) -> dict[str, str | float | bool]:
    """Return the part of a document's metadata that attributes can hold: no lists, no objects."""
    return {name: value for name, value in metadata.items() if isinstance(value, str | int | float)}
