"""The torch engine: any sentence-transformers model, on a GPU or a CPU."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from raglan.encoders import device as devices
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Precision
from raglan.errors import InvalidInput, Unavailable

_DTYPES: Final = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchModel:
    """One model on one device. One caller at a time."""

    def __init__(self, model: EncoderModel, *, device: str, precision: Precision) -> None:
        """Load it. Blocks for seconds.

        Raises:
            InvalidInput: f16 on a CPU.
            Unavailable: no such GPU, or the files cannot be loaded.
        """
        self.device = devices.torch_device(device)
        on_gpu = self.device != "cpu"
        self.dtype = ("f16" if on_gpu else "f32") if precision == "auto" else precision
        if self.dtype == "f16" and not on_gpu:
            raise InvalidInput(
                "precision is 'f16', which torch has no fast CPU kernels for; set f32."
            )
        try:
            self._model = SentenceTransformer(
                str(model.path),
                device=self.device,
                local_files_only=True,
                model_kwargs={"dtype": _DTYPES[self.dtype]},
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"torch cannot load {model.path}: {error}") from error

    def token_vectors(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 (batch, tokens, dim)."""
        return self._forward("token_embeddings", ids, mask)

    def sentence_vectors(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """float32 (batch, dim), pooled by the model's own modules."""
        return self._forward("sentence_embedding", ids, mask)

    def _forward(
        self, output: str, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        features = {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(mask).to(self.device),
        }
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._model(features)[output].float().cpu().numpy()
        return vectors
