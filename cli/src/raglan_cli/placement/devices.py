"""GPUs and MIG slices, as a user names them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raglan_cli.placement.sizes import GB, InvalidSize, gigabytes, parse_size

_MAX_DEVICES: Final = 64
_SLICE: Final = re.compile(r"([1-7])g\.(\d+)gb(\+\S+)?", re.IGNORECASE)
_COMPUTE_SLICES: Final = 7


@dataclass(frozen=True)
class Device:
    """A whole GPU, or a slice of one."""

    gpu: int
    """Index of the GPU."""
    size: int
    """Bytes."""
    profile: str = ""
    """MIG profile of a slice, such as 3g.40gb."""
    instance: int = 0
    """Place of a slice among those of its GPU."""

    @property
    def name(self) -> str:
        """Name by which NVIDIA's container toolkit knows it: an index, or GPU:slice."""
        return f"{self.gpu}:{self.instance}" if self.profile else str(self.gpu)

    def __str__(self) -> str:
        kind = f"slice {self.profile} {self.instance} of GPU {self.gpu}" if self.profile else ""
        return kind or f"GPU {self.gpu} ({gigabytes(self.size)})"


def parse_devices(gpus: Sequence[str]) -> list[Device]:
    """Read GPUs such as 24GB, 2x24GB or 80GB/3g.40gb,3g.40gb.

    A GPU with slices is used by its slices alone.

    Raises:
        InvalidSize: a GPU or slice that is none; the message says which.
    """
    devices: list[Device] = []
    index = 0
    for text in gpus:
        times, size, slices = _parts(text)
        for _ in range(times):
            devices += _slices(text, index, size, slices) if slices else [Device(index, size)]
            index += 1
    if len(devices) > _MAX_DEVICES:
        raise InvalidSize(f"There are {len(devices)} GPUs and slices; the limit is {_MAX_DEVICES}.")
    return devices


def _parts(text: str) -> tuple[int, int, list[str]]:
    head, _, slices = text.strip().partition("/")
    times, _, size = head.rpartition("x")
    if times and (not times.strip().isdecimal() or int(times) < 1):
        raise InvalidSize(f"--gpu {text!r}: {times!r} is no number of GPUs; write 2x24GB.")
    try:
        parsed = parse_size(size)
    except InvalidSize as error:
        raise InvalidSize(f"--gpu {text!r}: {error}") from None
    names = [name.strip() for name in slices.split(",")] if slices else []
    return int(times or 1), parsed, names


def _slices(text: str, gpu: int, size: int, names: Sequence[str]) -> list[Device]:
    found, compute = [], 0
    for instance, name in enumerate(names):
        matched = _SLICE.fullmatch(name)
        if not matched:
            raise InvalidSize(
                f"--gpu {text!r}: {name!r} is no MIG profile; write one such as 3g.40gb."
            )
        compute += int(matched[1])
        found.append(Device(gpu, int(matched[2]) * GB, name.lower(), instance))
    if compute > _COMPUTE_SLICES:
        raise InvalidSize(
            f"--gpu {text!r}: the slices take {compute} sevenths of the GPU; it has "
            f"{_COMPUTE_SLICES}."
        )
    # A profile's name rounds its memory.
    if (wanted := sum(device.size for device in found)) > size * 1.05:
        raise InvalidSize(
            f"--gpu {text!r}: the slices take {gigabytes(wanted)}; the GPU has {gigabytes(size)}."
        )
    return found
