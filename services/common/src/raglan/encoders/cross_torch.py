"""A cross-encoder on torch: any sequence classifier of transformers, on a GPU or a CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from raglan.encoders import device as devices
from raglan.encoders import device_use
from raglan.encoders.cross_export import has_segments
from raglan.encoders.device import Precision
from raglan.encoders.model import EncoderModel
from raglan.encoders.torch_model import DTYPES, device_errors, usable_dtype
from raglan.errors import Unavailable


class TorchCrossEncoder:
    """One model on one device. One caller at a time."""

    def __init__(self, model: EncoderModel, *, device: str, precision: Precision) -> None:
        """Load it. Blocks for seconds.

        Raises:
            InvalidInput: a precision that the device has no kernels for.
            Unavailable: no such GPU, or the files cannot be loaded.
        """
        self.device = devices.torch_device(device)
        self.dtype = usable_dtype(precision, self.device)
        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                model.path, dtype=DTYPES[self.dtype], local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"torch cannot load {model.path}: {error}") from error
        self._model = self._model.eval().to(self.device)
        self._segments = has_segments(self._model)
        self.uses = device_use.of_gpu(self._model, self.logits, max_tokens=model.max_tokens)

    def logits(
        self,
        ids: NDArray[np.int64],
        mask: NDArray[np.int64],
        types: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """float32 (batch, 1).

        Raises:
            DeviceLost: the device is of no more use to this process.
        """
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._segments and types is not None:
            inputs["token_type_ids"] = types
        with torch.inference_mode(), device_errors(self.device):
            tensors = {name: torch.from_numpy(x).to(self.device) for name, x in inputs.items()}
            logits: NDArray[np.float32] = self._model(**tensors).logits.float().cpu().numpy()
        return logits
