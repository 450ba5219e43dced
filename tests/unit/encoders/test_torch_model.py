"""The torch engine's choices, on the CPU; what needs a GPU is refused here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from raglan.encoders import model as models
from raglan.encoders.device import DeviceLost
from raglan.encoders.sessions import pad
from raglan.encoders.torch_model import TorchModel, device_errors
from raglan.errors import InvalidInput
from raglan.scheduling import BatchTooLarge

BATCH = pad([[101, 2023, 2003, 102], [101, 1037, 2440, 6251, 2182, 102]])


def load(**choices: Any) -> TorchModel:
    minilm = models.read(models.DEFAULT_MODEL)
    return TorchModel(minilm, **({"device": "cpu", "precision": "f32"} | choices))


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"precision": "f16"}, "torch on cpu offers f32 and bf16"),
        ({"precision": "int8"}, "torch on cpu offers f32 and bf16"),
        ({"attention": "flash_attention_2"}, "needs a GPU and f16 or bf16; this is f32 on cpu"),
    ],
)
def test_what_a_cpu_has_no_kernels_for_is_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        load(**choices)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on the way
def test_compiled_the_vectors_are_the_same() -> None:
    plain, compiled = load(), load(compiled=True)
    assert np.allclose(plain.sentence_vectors(*BATCH), compiled.sentence_vectors(*BATCH), atol=1e-5)


def test_an_error_of_the_device_is_told_from_one_of_the_batch() -> None:
    lost = pytest.raises(DeviceLost, match="cuda:0 failed: CUDA error: an illegal memory access")
    with lost, device_errors("cuda:0"):
        raise torch.AcceleratorError("CUDA error: an illegal memory access\nmore")
    with pytest.raises(BatchTooLarge), device_errors("cuda:0"):
        raise torch.OutOfMemoryError("2 GiB")
