"""The warning that a document's language is not one of the embedding model's."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from raglan import readability


def unread_language_warning(values: Sequence[float], model_id: str) -> str | None:
    """What to tell who ingests documents that the model hardly reads; None where it reads them.

    Args:
        values: Readability of each chunk, in [0, 1]; empty where the embedder does not know.
        model_id: The embedding model.
    """
    if not values or fmean(values) > readability.UNREADABLE:
        return None
    return (
        f"The embedding model {model_id} does not read the language of this text "
        f"(readability {fmean(values):.2f}, English has 0.9 and more), so searches go by words "
        "alone. Choose a multilingual model such as BAAI/bge-m3 (RAGLAN_EMBEDDER_MODEL)."
    )
