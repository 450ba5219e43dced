"""Engine `torch`: any sentence-transformers model with its own modules, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raglan.encoders import heads as model_heads
from raglan.encoders.device import Attention, Precision
from raglan.encoders.heads import unit_rows
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import pad
from raglan.encoders.torch_model import TorchModel

from raglan_embedder.engines import Engine
from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors, encode, outputs_of


def load(
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    cache_dir: Path,
    attention: Attention = "sdpa",
    compiled: bool = False,
) -> Engine:
    """Load `model`; one stream, which has the whole device.

    Raises:
        InvalidInput: the device has no such precision or attention.
        Unavailable: no such GPU, or the weights cannot be loaded.
    """
    loaded = TorchModel(
        model, device=device, precision=precision, attention=attention, compiled=compiled
    )
    heads = model_heads.load(model, cache_dir)
    # sentence-transformers takes the mean where the files say nothing; here the setting counts.
    is_bare = model.layout is None or not model.layout.modules

    def embed(batch: Sequence[EncodeItem]) -> list[TextVectors]:
        if is_bare or any(text.outputs != Outputs.DENSE for text in batch):
            return encode(loaded.token_vectors, batch, pooling=model.pooling, heads=heads)
        # Pooled where the model runs: what comes back is a vector a text, not one a token.
        vectors = unit_rows(loaded.sentence_vectors(*pad([text.ids for text in batch])))
        return [TextVectors(len(text.ids), row) for text, row in zip(batch, vectors, strict=True)]

    return Engine(
        name="torch",
        streams=(embed,),
        device=loaded.device,
        dtype=loaded.dtype,
        uses=loaded.uses,
        outputs=outputs_of(heads) if model.plain else Outputs.DENSE,
    )
