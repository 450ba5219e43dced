"""Device that a model really runs on, measured once when it is loaded.

A GPU may be asked for and not be used: a container without the NVIDIA runtime, a build of torch
without CUDA. Answers stay right then and take ten times as long, so a name is no proof. The weights
say where they are, and their largest matrix is timed there and on the CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from raglan.v1 import common_pb2

if TYPE_CHECKING:
    import torch

_TEXTS: Final = 8
_TOKENS: Final = 128
_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A device that a model runs on, as found when it was loaded."""

    name: str
    """As torch names it, e.g. "cuda:0"."""
    batch_s: float
    """One batch through the model, in seconds, the best of a few."""
    batch_tokens: int
    matrix_s: float
    """The model's largest matrix times that batch, in seconds; 0 for a model without one."""
    cpu_matrix_s: float
    """The same on the CPU."""
    model: str = ""
    """The GPU's product name."""
    uuid: str = ""
    memory_bytes: int = 0
    used_bytes: int = 0
    """Held by torch on this GPU."""

    def to_proto(self) -> common_pb2.DeviceUse:
        """The wire's form."""
        return common_pb2.DeviceUse(**asdict(self))


def unused_gpu(asked: str, runtime: str, device: str, driver: str) -> list[str]:
    """Return a sentence if a model runs on the CPU because torch does not see the machine's GPU.

    Args:
        asked: setting of the device; only "auto" may fall back.
        runtime: "torch", or one that runs on the CPU by choice.
        device: that the model runs on.
        driver: version of the NVIDIA driver that the machine has loaded; empty if there is none.
    """
    if not driver or runtime != "torch" or device != "cpu" or "auto" not in asked:
        return []
    import torch

    if torch.version.cuda is None:
        cause = f"torch {torch.__version__} is a build without CUDA"
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        cause = f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}"
    else:
        cause = "the container was not given the GPU, or the driver is older than CUDA "
        cause += torch.version.cuda
    return [f"No GPU is used although the NVIDIA driver {driver} is loaded: {cause}."]


def of_gpu(
    module: torch.nn.Module,
    run: Callable[[NDArray[np.int64], NDArray[np.int64]], object],
    *,
    max_tokens: int,
) -> tuple[DeviceUse, ...]:
    """Measure where `module` runs; nothing if its weights are on the CPU.

    Args:
        module: of torch, loaded.
        run: the model's answer to (ids, mask), both (batch, tokens), in the CPU's memory.
        max_tokens: that the model reads of a text.
    """
    if next(module.parameters()).device.type == "cpu":
        return ()
    return (measure(module, run, max_tokens=max_tokens),)


def measure(
    module: torch.nn.Module,
    run: Callable[[NDArray[np.int64], NDArray[np.int64]], object],
    *,
    max_tokens: int,
) -> DeviceUse:
    """Measure as `of_gpu`, on any device. Takes a tenth of a second with a model of 100 MB."""
    import torch

    device = next(module.parameters()).device
    ids = np.ones((_TEXTS, min(_TOKENS, max_tokens)), np.int64)
    batch_s = _best_s(lambda: run(ids, ids))
    matrices = [each.weight for each in module.modules() if isinstance(each, torch.nn.Linear)]
    matrix = max(matrices, key=torch.Tensor.numel, default=None)
    measured = DeviceUse(
        name=str(device),
        batch_s=batch_s,
        batch_tokens=ids.size,
        matrix_s=_product_s(matrix, ids.size),
        cpu_matrix_s=_product_s(None if matrix is None else matrix.float().cpu(), ids.size),
    )
    if device.type != "cuda":
        return measured
    return _with_properties(measured, device)


def _with_properties(measured: DeviceUse, device: torch.device) -> DeviceUse:
    import torch

    found = torch.cuda.get_device_properties(device)
    return replace(
        measured,
        model=found.name,
        uuid=f"GPU-{found.uuid}",
        memory_bytes=found.total_memory,
        used_bytes=torch.cuda.memory_allocated(device),
    )


def _product_s(matrix: torch.Tensor | None, rows: int) -> float:
    """Time of a product with `rows` rows, until its result is in the CPU's memory."""
    import torch

    if matrix is None:
        return 0.0
    with torch.inference_mode():
        rows_in = torch.ones(rows, matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        # One number comes back: that waits for the device, and is no transfer worth counting.
        return _best_s(lambda: torch.nn.functional.linear(rows_in, matrix)[0, 0].item())


def _best_s(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(1 + _RUNS):  # the first one also compiles and allocates
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
