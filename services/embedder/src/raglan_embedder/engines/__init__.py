"""Batches of token ids to vectors: what an engine is, and which one a name stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Precision, SessionEngine, TokenIds

EmbedBatch = Callable[[Sequence[TokenIds]], NDArray[np.float32]]
"""Token ids of a batch -> float32 (batch, dimension), rows L2-normalised. One caller at a time."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model, ready for one device thread a stream."""

    name: str
    streams: tuple[EmbedBatch, ...]
    device: str
    dtype: str

    bulk_streams: tuple[EmbedBatch, ...] = ()
    """Streams for bulk work, which yield to `streams`; empty where the device has but one lane."""


def load(
    name: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
) -> Engine:
    """Load engine `name`. Blocks for seconds: call it in a thread.

    Raises:
        InvalidInput: the engine cannot run this model, device or precision.
        Unavailable: no such GPU, or the weights cannot be loaded.
    """
    if name == "torch":
        from raglan_embedder.engines import torch

        return torch.load(model, device=device, precision=precision)
    from raglan_embedder.engines import pooled

    return pooled.load(
        name, model, device=device, precision=precision, streams=streams, cache_dir=cache_dir
    )


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return unit
