"""Warnings about what the embedding model does not read: languages, and ends of chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from raglan import readability


class UnreadDocuments:
    """Counts the documents of a job, and those that the embedding model hardly reads."""

    def __init__(self) -> None:
        self._documents = 0
        self._unread: Counter[str] = Counter()
        self._model_id = ""

    def add(self, language: str, values: Sequence[float], model_id: str) -> None:
        """Count a document.

        Args:
            language: ISO 639-1; empty where it is unknown.
            values: readability of each chunk, in [0, 1]; empty where the embedder does not know.
            model_id: the embedding model.
        """
        self._documents += 1
        if values and fmean(values) <= readability.UNREADABLE:
            self._unread[language] += 1
            self._model_id = model_id

    def warnings(self) -> list[str]:
        """One sentence for the owner of the job, or none."""
        if not self._unread:
            return []
        languages = ", ".join(sorted(filter(None, self._unread))) or "unknown"
        return [
            f"The embedding model {self._model_id} hardly reads "
            f"{self._unread.total():,} of {self._documents:,} documents (language: {languages}), "
            "so searches find them by words alone. If they are in a language that is not the "
            "model's, choose a multilingual model such as BAAI/bge-m3 (RAGLAN_EMBEDDER_MODEL) and "
            "ingest them into a new collection; texts of codes and numbers no model reads."
        ]


def truncation_warnings(truncated: Sequence[int]) -> list[str]:
    """Return the warning about tokens that were not read, by chunk; none where all were."""
    if not any(truncated):
        return []
    chunks = sum(tokens > 0 for tokens in truncated)
    return [
        f"The embedding model did not read the last {sum(truncated):,} tokens of {chunks:,} of "
        f"{len(truncated):,} chunks: they are found by words only. Make the chunks shorter "
        "(chunking.max_chars of the collection)."
    ]
