"""Several devices: a worker process for each, behind one queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from raglan.scheduling import worker

from raglan_embedder.engines import EmbedBatch, Engine


def load(devices: Sequence[str], engine_on: Callable[[str], Engine]) -> Engine:
    """One engine over `devices`, each in a process of its own with one stream.

    Args:
        devices: names of devices.
        engine_on: loads the engine on a device; runs in the process, so a partial of a function.

    Raises:
        InvalidInput: a device is named twice, or cannot run the engine.
        Unavailable: a device is missing, or a worker ended.
    """
    started = worker.on_devices(devices, partial(_load, engine_on), name="embedder")
    return replace(
        started.descriptions[0],
        streams=started.streams,
        device=",".join(each.device for each in started.descriptions),
        uses=tuple(use for each in started.descriptions for use in each.uses),
        close=started.close,
    )


def _load(engine_on: Callable[[str], Engine], device: str) -> tuple[EmbedBatch, Engine]:
    engine = engine_on(device)
    return engine.streams[0], replace(engine, streams=(), bulk_streams=())
