"""The torch engine: any sentence-transformers model, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import repad_flattened_features
from transformers.utils.import_utils import is_flash_attn_2_available

from raglan.encoders import device as devices
from raglan.encoders import device_use
from raglan.encoders.device import Attention, Precision
from raglan.encoders.model import EncoderModel
from raglan.errors import InvalidInput, Unavailable
from raglan.scheduling import BatchTooLarge

DTYPES: Final = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchModel:
    """One model on one device. One caller at a time."""

    def __init__(
        self,
        model: EncoderModel,
        *,
        device: str,
        precision: Precision,
        attention: Attention = "sdpa",
        compiled: bool = False,
    ) -> None:
        """Load it. Blocks for seconds.

        Args:
            model: the resolved model.
            device: auto, cpu, cuda or cuda:<number>.
            precision: number format of the weights.
            attention: with "flash_attention_2", batches run without padding where
                sentence-transformers can do so for this model.
            compiled: let torch.compile fuse the encoder; the first batches then take minutes on
                some models, so that it pays only for a long-lived service.

        Raises:
            InvalidInput: a precision or an attention that the device has no kernels for.
            Unavailable: no such GPU, or the files cannot be loaded.
        """
        self.device = devices.torch_device(device)
        self.dtype = usable_dtype(precision, self.device)
        _require(attention, self.device, self.dtype)
        try:
            self._model = SentenceTransformer(
                str(model.root),
                device=self.device,
                local_files_only=True,
                model_kwargs={"dtype": DTYPES[self.dtype], "attn_implementation": attention},
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"torch cannot load {model.path}: {error}") from error
        first: Any = self._model[0]
        self.padding_free = attention == "flash_attention_2" and first.can_flatten_inputs
        if compiled:
            # In place, and for any shape: one compilation serves batches of every width.
            first.auto_model.compile(dynamic=True)

        self.uses = device_use.of_gpu(
            self._model, self.sentence_vectors, max_tokens=model.max_tokens
        )

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
        with torch.inference_mode(), device_errors(self.device):
            features = self._model(self._features(ids, mask))
            if self.padding_free and output == "token_embeddings":
                features = repad_flattened_features(features)
            vectors: NDArray[np.float32] = features[output].float().cpu().numpy()
        return vectors

    def _features(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> dict[str, Any]:
        if not self.padding_free:
            return {
                "input_ids": torch.from_numpy(ids).to(self.device),
                "attention_mask": torch.from_numpy(mask).to(self.device),
            }
        # As sentence-transformers' Transformer.preprocess does it: one row of all tokens, with
        # where each text begins.
        first: Any = self._model[0]
        texts = [
            {"input_ids": row[:length].tolist()}
            for row, length in zip(ids, mask.sum(axis=1), strict=True)
        ]
        flat = first.data_collator(texts)
        flat.pop("labels", None)
        flat["position_ids"] = flat["position_ids"] + first._flatten_position_offset
        return {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in flat.items()
        }


def usable_dtype(precision: Precision, device: str) -> str:
    """Return the torch dtype of `precision` on `device`.

    Raises:
        InvalidInput: torch has no kernels for it there.
    """
    on_gpu = device != "cpu"
    dtype = ("f16" if on_gpu else "f32") if precision == "auto" else precision
    if dtype not in DTYPES or (dtype == "f16" and not on_gpu):
        offered = "f32, bf16 and f16" if on_gpu else "f32 and bf16"
        raise InvalidInput(
            f"precision is {precision!r}; torch on {device} offers {offered}. "
            'Set it to "auto" to take the best.'
        )
    return dtype


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Tell a lost device from a batch that failed.

    An error of a CUDA kernel makes every later call of the process fail, too. Too little memory is
    the fault of one batch: what torch had kept for reuse is given back, and the next one runs.

    Raises:
        BatchTooLarge: there was too little memory for this batch.
        DeviceLost: the device is of no more use to this process.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise BatchTooLarge(f"{device} has no memory for this batch.") from error
    except torch.AcceleratorError as error:
        reason = str(error).partition("\n")[0]
        raise devices.DeviceLost(f"{device} failed: {reason}. A new process may use it.") from error


def _require(attention: Attention, device: str, dtype: str) -> None:
    if attention != "flash_attention_2":
        return
    if device == "cpu" or dtype == "f32":
        raise InvalidInput(
            f"attention is {attention!r}, which needs a GPU and f16 or bf16; this is {dtype} on "
            f'{device}. Set attention to "sdpa".'
        )
    if not is_flash_attn_2_available():
        raise InvalidInput(
            f"attention is {attention!r}, but the package flash-attn is not installed or does not "
            'fit this GPU. Install it, or set attention to "sdpa".'
        )
