"""Batches of token ids to vectors: what an engine is, and which one a name stands for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raglan.encoders.device import Attention, Precision, SessionEngine, missing_library
from raglan.encoders.device_use import DeviceUse
from raglan.encoders.model import EncoderModel

from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors

EmbedBatch = Callable[[Sequence[EncodeItem]], Sequence[TextVectors]]
"""Encodes the items of a batch in their order. One caller at a time."""


def nothing() -> None:
    """Close an engine that holds nothing."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model, ready for one device thread a stream."""

    name: str
    streams: tuple[EmbedBatch, ...]
    device: str
    dtype: str

    bulk_streams: tuple[EmbedBatch, ...] = ()
    """Streams for bulk work, which yield to `streams`; empty where the device has but one lane."""

    outputs: Outputs = Outputs.DENSE
    """Outputs of the model."""

    uses: tuple[DeviceUse, ...] = ()
    """GPUs that the streams run on."""

    close: Callable[[], None] = nothing
    """Gives back what the streams hold; called once, when none of them runs."""


def load(
    name: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
    attention: Attention = "sdpa",
    compiled: bool = False,
    stopped: threading.Event | None = None,
) -> Engine:
    """Load engine `name`. Blocks for seconds: call it in a thread.

    Args:
        name: of the engine.
        model: the resolved model.
        device: one, or several separated by commas: then each has a process of its own.
        precision: number format of the weights.
        streams: batches that run at once on a CPU; 0 means one a core.
        cache_dir: folder of exported models.
        attention: of the torch engine.
        compiled: whether the torch engine compiles the model.
        stopped: when it is set, a running conversion is abandoned.

    Raises:
        InvalidInput: the engine cannot run this model, device or precision.
        Unavailable: no such GPU, or the weights cannot be loaded.
    """
    listed = device.split(",")
    if len(listed) > 1:
        from raglan_embedder.engines import devices

        one = partial(_on_device, name, model, precision, cache_dir, attention, compiled)
        return devices.load(listed, one)
    if name == "torch":
        try:
            from raglan_embedder.engines import torch
        except ModuleNotFoundError as error:
            raise missing_library(error) from None
        return torch.load(
            model,
            device=device,
            precision=precision,
            cache_dir=cache_dir,
            attention=attention,
            compiled=compiled,
        )
    from raglan_embedder.engines import pooled

    return pooled.load(
        name,
        model,
        device=device,
        precision=precision,
        streams=streams,
        cache_dir=cache_dir,
        stopped=stopped,
    )


def _on_device(
    name: SessionEngine,
    model: EncoderModel,
    precision: Precision,
    cache_dir: Path,
    attention: Attention,
    compiled: bool,
    device: str,
) -> Engine:
    return load(
        name,
        model,
        device=device,
        precision=precision,
        streams=1,
        cache_dir=cache_dir,
        attention=attention,
        compiled=compiled,
    )
