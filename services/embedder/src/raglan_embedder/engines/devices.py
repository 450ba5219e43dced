"""Several devices: a worker process for each, behind one queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from raglan.errors import InvalidInput, Unavailable
from raglan.scheduling import DeviceLost
from raglan.scheduling.worker import Worker

from raglan_embedder.engines import EmbedBatch, Engine
from raglan_embedder.outputs import TextVectors, Wanted

LOAD_S: Final = 300.0
"""Longest a worker may take to load its model."""


def load(devices: Sequence[str], engine_on: Callable[[str], Engine]) -> Engine:
    """One engine over `devices`, each in a process of its own with one stream.

    Args:
        engine_on: loads the engine on a device; runs in the process, so a partial of a function.

    Raises:
        InvalidInput: a device is named twice, or cannot run the engine.
        Unavailable: a device is missing, or a worker ended.
    """
    if len(set(devices)) < len(devices) and any(name != "cpu" for name in devices):
        raise InvalidInput(f"device is {','.join(devices)!r}: name each GPU once.")
    with ExitStack() as stack:
        workers: list[Worker[Wanted, TextVectors, Engine]] = []
        for number, device in enumerate(devices):
            load_there = partial(_load, engine_on, device)
            worker = Worker(load_there, name=f"embedder-{number}-{device}")
            stack.callback(worker.close)
            workers.append(worker)
        try:
            told = [worker.ready(LOAD_S) for worker in workers]
        except DeviceLost as error:
            raise Unavailable(f"A device cannot be used: {error}") from error
        closing = stack.pop_all()
    return replace(
        told[0],
        streams=tuple(workers),
        device=",".join(each.device for each in told),
        close=closing.close,
    )


def _load(engine_on: Callable[[str], Engine], device: str) -> tuple[EmbedBatch, Engine]:
    engine = engine_on(device)
    return engine.streams[0], replace(engine, streams=(), bulk_streams=())
