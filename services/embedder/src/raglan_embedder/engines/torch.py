"""Engine `torch`: any sentence-transformers model with its own modules, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Precision, TokenIds, pad
from raglan.encoders.torch_model import TorchModel

from raglan_embedder.engines import Engine, normalised


def load(model: EncoderModel, *, device: str, precision: Precision) -> Engine:
    """Load `model`; one stream, which has the whole device.

    Raises:
        Unavailable: no such GPU, or the weights cannot be loaded.
    """
    loaded = TorchModel(model, device=device, precision=precision)

    def embed(batch: Sequence[TokenIds]) -> NDArray[np.float32]:
        return normalised(loaded.sentence_vectors(*pad(batch)))

    return Engine(name="torch", streams=(embed,), device=loaded.device, dtype=loaded.dtype)
