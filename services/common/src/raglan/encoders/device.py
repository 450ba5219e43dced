"""Device selection: the configured device or an error, never a silent fallback."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Final, Literal

import structlog

from raglan.errors import InvalidInput, Unavailable
from raglan.scheduling import DeviceLost

__all__ = [
    "PATTERN",
    "Attention",
    "DeviceLost",
    "Precision",
    "SessionEngine",
    "require_cpu",
    "torch_device",
    "usable_cores",
]

log: Final = structlog.get_logger()

SessionEngine = Literal["openvino", "onnx", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
Attention = Literal["sdpa", "flash_attention_2"]

PATTERN: Final = r"auto|cpu|cuda(:\d+)?|GPU-[0-9a-f-]{4,36}"
"""Pattern of valid device settings. A UUID may be cut short, as in CUDA_VISIBLE_DEVICES."""


_CGROUP: Final = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: those it may run on, and no more than its container's CPU quota.

    More threads than the quota pays for are stopped together until its next period.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that a container gets; None without a limit."""
    try:
        if (unified := cgroup / "cpu.max").is_file():
            quota, period = unified.read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", or no such file


def require_cpu(device: str, engine: str) -> str:
    """Return "cpu" for an engine that runs nowhere else.

    Raises:
        InvalidInput: another device is configured.
    """
    if device not in ("auto", "cpu"):
        raise InvalidInput(
            f"The {engine} engine runs on the CPU; device is {device!r}. "
            'Choose the engine "torch" for a GPU, or the device "cpu".'
        )
    return "cpu"


def missing_library(error: ModuleNotFoundError) -> Unavailable:
    """Build the error of a torch engine in an installation, or an image, without its libraries."""
    return Unavailable(
        f'The torch engine needs {error.name}, which is not installed: install "raglan[torch]", '
        "take the image whose tag ends in -gpu, or choose the engine openvino."
    )


def torch_device(device: str) -> str:
    """Return the torch device for a setting ("auto", "cpu", "cuda:1", "GPU-5f7e..."), with torch.

    Raises:
        InvalidInput: not such a setting.
        Unavailable: the configured GPU is not there.
    """
    import torch

    if not re.fullmatch(PATTERN, device):
        raise InvalidInput(
            f"device is {device!r}; it must be auto, cpu, cuda, cuda:<number> or a GPU's UUID."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        if count == 0:
            log.warning("no CUDA device found: running on the CPU", asked_for="auto")
        return "cuda:0" if count else "cpu"
    if device == "cpu":
        return device
    index = _index_by_uuid(device, count) if device.startswith("GPU-") else _index(device)
    if index is None or index >= count:
        cure = "give the process that GPU" if torch.version.cuda else "install torch for CUDA"
        raise Unavailable(
            f"device is {device!r}, but torch {torch.__version__} sees {count} CUDA devices"
            f"{' and none with this UUID' if index is None and count else ''}. "
            f'Set the device to "auto" or "cpu", or {cure}.'
        )
    return f"cuda:{index}"


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _index_by_uuid(uuid: str, count: int) -> int | None:
    """Index of the one visible GPU whose UUID begins with `uuid`; None without exactly one."""
    import torch

    found = [
        index
        for index in range(count)
        if f"GPU-{torch.cuda.get_device_properties(index).uuid}".startswith(uuid)
    ]
    return found[0] if len(found) == 1 else None
