"""Engines `openvino` and `onnx`: token vectors from a session, pooled here."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from raglan.encoders import heads as model_heads
from raglan.encoders import sessions
from raglan.encoders.device import Precision, SessionEngine
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Run
from raglan.errors import InvalidInput

from raglan_embedder.engines import EmbedBatch, Engine
from raglan_embedder.outputs import encode, outputs_of


def load(
    name: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
    stopped: threading.Event | None = None,
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
        name,
        model,
        device=device,
        precision=precision,
        streams=streams,
        cache_dir=cache_dir,
        stopped=stopped,
    )
    heads = model_heads.load(model, cache_dir)

    def stream(run: Run) -> EmbedBatch:
        return partial(encode, run, pooling=model.pooling, heads=heads)

    return Engine(
        name=name,
        streams=tuple(map(stream, loaded.streams)),
        device=loaded.device,
        dtype=loaded.dtype,
        bulk_streams=tuple(map(stream, loaded.bulk_streams)),
        outputs=outputs_of(heads),
    )
