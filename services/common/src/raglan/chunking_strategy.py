"""Names of the ways to cut documents into chunks, shared by gateway, retriever and ingester."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from raglan.errors import InvalidInput
from raglan.identifiers import shortened


class ChunkingStrategy(StrEnum):
    """A way to cut documents. What a strategy is not made for is cut by `STRUCTURE`."""

    STRUCTURE = "structure"
    """Along sections and blocks: paragraphs, lists, tables."""
    SENTENCES = "sentences"
    """Whole sentences of a section, regardless of its paragraphs."""
    CODE = "code"
    """Source code along its definitions, by the syntax tree of its language."""
    LOG = "log"
    """Log entries, whole whatever their lines, with level, times and templates as metadata."""
    QA = "qa"
    """Each question with its answer, of an FAQ."""
    SEMANTIC = "semantic"
    """Sentences, cut where the embedding model sees the subject change; embeds three times."""
    PARENT = "parent"
    """Small chunks for the search, of sections that answers are written from."""
    TABLE = "table"
    """Each row of a table, or each record, with the names of its columns."""


STRUCTURE: Final = str(ChunkingStrategy.STRUCTURE)


def check_strategy(name: str) -> str:
    """Return `name` if it is a strategy's. Raises InvalidInput."""
    if name not in set(ChunkingStrategy):
        known = ", ".join(ChunkingStrategy)
        raise InvalidInput(f"chunking.strategy is {shortened(name)}; known are {known}.")
    return name
