"""Engines `openvino` and `onnx`: token vectors from a session, pooled here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from raglan.encoders import sessions
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Precision, Run, SessionEngine, TokenIds
from raglan.errors import InvalidInput

from raglan_embedder.engines import EmbedBatch, Engine, normalised


def load(
    name: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
) -> Engine:
    """Load `model` for a CPU.

    Raises:
        InvalidInput: the model does more than mean or CLS pooling, or there is no such device.
    """
    if not model.plain or model.pooling not in ("mean", "cls"):
        raise InvalidInput(
            f"The {name} engine does mean or cls pooling and nothing after it; {model.id!r} asks "
            f"for {model.pooling if model.plain else 'further modules'}. "
            'Choose the engine "torch".'
        )
    loaded = sessions.load(
        name, model, device=device, precision=precision, streams=streams, cache_dir=cache_dir
    )
    return Engine(
        name=name,
        streams=tuple(_pooled(run, model.pooling) for run in loaded.streams),
        device=loaded.device,
        dtype=loaded.dtype,
        bulk_streams=tuple(_pooled(run, model.pooling) for run in loaded.bulk_streams),
    )


def _pooled(run: Run, pooling: str) -> EmbedBatch:
    def embed(batch: Sequence[TokenIds]) -> NDArray[np.float32]:
        tokens = run(*sessions.pad(batch))
        if pooling == "cls":
            return normalised(tokens[:, 0].astype(np.float32))
        # Row by row over the text's own tokens: the sum then never depends on the padding.
        means = [row[: len(ids)].mean(axis=0) for row, ids in zip(tokens, batch, strict=True)]
        return normalised(np.stack(means))

    return embed
