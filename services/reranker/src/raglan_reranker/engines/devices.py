"""Execution of the model: streams on one device, or a worker process for each of several."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from raglan.encoders.device_use import DeviceUse
from raglan.scheduling import worker

Stream = Callable[[Sequence[Any]], Sequence[Any]]


def nothing() -> None:
    """Close streams that hold nothing. A function of the module, because a worker sends it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Streams, one a concurrent batch, and their device."""

    streams: Sequence[Stream]
    device: str
    dtype: str
    uses: tuple[DeviceUse, ...] = ()
    """GPUs that they run on."""
    close: Callable[[], None] = nothing
    """Gives back what the streams hold; called once, when none of them runs."""


class LoadOn(Protocol):
    """Loads on one device; of several, in the process of each."""

    def __call__(self, device: str, stopped: threading.Event | None = None) -> Streams:
        """Load on one device."""
        ...


def load(device: str, load_on: LoadOn, stopped: threading.Event) -> Streams:
    """Run `load_on` for `device`; of several, separated by commas, each gets a process.

    Args:
        device: auto, cpu, cuda or cuda:<number>.
        load_on: a function of a module or a partial of one, where there are several devices.
        stopped: when it is set, a conversion in this process is abandoned.

    Raises:
        RaglanError: why a device cannot be used.
    """
    devices = device.split(",")
    if len(devices) == 1:
        return load_on(device, stopped)
    started = worker.on_devices(devices, partial(_load, load_on), name="reranker")
    return Streams(
        started.streams,
        device=",".join(each.device for each in started.descriptions),
        dtype=started.descriptions[0].dtype,
        uses=tuple(use for each in started.descriptions for use in each.uses),
        close=started.close,
    )


def _load(load_on: LoadOn, device: str) -> tuple[Stream, Streams]:
    loaded = load_on(device)
    return loaded.streams[0], Streams((), loaded.device, loaded.dtype, loaded.uses)
