"""The text form of a chunk that embedding, lexical search and reranking share."""

from __future__ import annotations

from collections.abc import Sequence


def in_context(title: str, heading_path: Sequence[str], text: str) -> str:
    """Title, headings and text, a line each; what is empty, or said twice, is left out.

    A chunk from the middle of a document often does not name its subject; these lines do.
    """
    lines = ("" if title in heading_path else title, " > ".join(heading_path), text)
    return "\n".join(line for line in lines if line)
