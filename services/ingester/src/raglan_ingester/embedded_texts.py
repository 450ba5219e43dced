"""The texts that are embedded for the chunks of documents."""

from __future__ import annotations

from collections.abc import Sequence

from raglan.chunk_text import in_context
from raglan.markup import blank_markup

from raglan_ingester.parsing import CutDocument


def embedded_texts(
    documents: Sequence[CutDocument], sentences: Sequence[Sequence[str]]
) -> list[str]:
    """Return the text of each chunk of each document, in order, with what places it.

    Args:
        documents: parsed and cut.
        sentences: of each document one a chunk that situates it, empty for none; or nothing.
    """
    return [
        text
        for document, some in zip(documents, sentences, strict=True)
        for text in _texts_of(document, some)
    ]


def _texts_of(document: CutDocument, sentences: Sequence[str]) -> list[str]:
    text, chunks = document.text, document.chunks
    lines = [f"{each}\n" if each else "" for each in sentences] or [""] * len(chunks)
    return [
        in_context(
            document.title, span.heading_path, line + blank_markup(text[span.start : span.end])
        )
        for span, line in zip(chunks, lines, strict=True)
    ]
