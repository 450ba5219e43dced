"""What the embedding model reads of a document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from raglan.chunk_text import in_context
from raglan.markup import blank_markup

from raglan_ingester.clients.embedder import Embedded
from raglan_ingester.parsing import CutDocument


def embedding_texts(cut: CutDocument, sentences: Sequence[str] = ()) -> list[str]:
    """Return the text of each chunk, in its context and without markup.

    Args:
        cut: the document.
        sentences: one a chunk that situates it, empty for none; or nothing.
    """
    lines = [f"{each}\n" if each else "" for each in sentences] or [""] * len(cut.chunks)
    return [
        in_context(
            cut.title, span.heading_path, line + blank_markup(cut.text[span.start : span.end])
        )
        for span, line in zip(cut.chunks, lines, strict=True)
    ]


def divided(replies: Sequence[Embedded], chunks: Sequence[int]) -> list[Embedded]:
    """Return what was embedded together as one result a document.

    Args:
        replies: for consecutive texts, at least one.
        chunks: of each document; all of them together are the texts.
    """
    vectors = np.concatenate([reply.vectors for reply in replies])
    of_texts = {
        name: [value for reply in replies for value in getattr(reply, name)]
        for name in ("truncated_tokens", "readability", "tokens", "sparse")
    }
    found, at = [], 0
    for count in chunks:
        part = slice(at, at + count)
        own = {name: values[part] for name, values in of_texts.items()}
        found.append(Embedded(vectors[part], replies[0].model, **own))
        at += count
    return found
