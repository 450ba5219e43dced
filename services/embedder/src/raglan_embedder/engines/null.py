"""Engine `null`: unit vectors from a digest of the text, at no cost and without a model.

What is left of the service around it is the mesh itself, which can so be measured and rehearsed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from raglan.encoders.heads import unit_rows
from raglan.encoders.model import EncoderModel

from raglan_embedder.embedding import PreparedText, TextFacts
from raglan_embedder.engines import Engine
from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors

MODEL: Final = EncoderModel(
    id="null",
    path=Path(),
    files="1",
    dimension=384,
    max_tokens=512,
    pooling="mean",
    plain=True,
)
"""Nominal source of its vectors; there is no such folder."""


class Words:
    """A word is a token, its CRC-32 the token's id; needs no vocabulary."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens

    def read(self, texts: Sequence[str], *, start: int) -> list[PreparedText]:
        """Token ids of each text, cut at the end."""
        return [self._read(text.split()) for text in texts]

    def _read(self, words: Sequence[str]) -> PreparedText:
        ids = [zlib.crc32(word.encode()) for word in words[: self._max_tokens]]
        return PreparedText(ids, len(ids), TextFacts(truncated=len(words) - len(ids)))


def load() -> Engine:
    """One stream for both lanes: equal texts get equal vectors, in every process."""
    return Engine(name="null", streams=(_embed,), device="cpu", dtype="f32", outputs=Outputs.DENSE)


def _embed(batch: Sequence[EncodeItem]) -> list[TextVectors]:
    digests = [
        hashlib.shake_128(np.array(text.ids, "<u4").tobytes()).digest(MODEL.dimension)
        for text in batch
    ]
    rows = np.frombuffer(b"".join(digests), np.int8).reshape(len(batch), MODEL.dimension)
    vectors = unit_rows(rows.astype(np.float32))
    return [TextVectors(len(text.ids), row) for text, row in zip(batch, vectors, strict=True)]
