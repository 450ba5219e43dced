"""Cross-encoder: one relevance for query and passage read together.

The relevance is the logit of a sequence classifier with a single label, by OpenVINO, ONNX Runtime
or torch.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raglan.encoders import device as devices
from raglan.encoders import sessions
from raglan.encoders.cross_export import cross_onnx_file
from raglan.encoders.device import Precision, SessionEngine
from raglan.encoders.device_use import DeviceUse
from raglan.encoders.model import EncoderModel
from raglan.encoders.tokenizer import PairIds
from raglan.errors import InvalidInput

Score = Callable[[Sequence[PairIds]], NDArray[np.float64]]
"""A batch of pairs -> their logits, (batch,). One caller at a time."""


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """A loaded cross-encoder: as many streams as may run at once, and what they run on."""

    streams: tuple[Score, ...]
    device: str
    dtype: str
    uses: tuple[DeviceUse, ...] = ()
    """GPUs that it runs on."""


def load(
    runtime: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
    stopped: threading.Event | None = None,
) -> CrossEncoder:
    """Load `model`. Blocks for seconds: call it in a thread.

    Args:
        runtime: inference engine.
        model: the resolved model.
        device: auto, cpu, cuda or cuda:<number>.
        precision: number format of the weights.
        streams: batches that run at once on a CPU; 0 means one a core.
        cache_dir: folder of exported models.
        stopped: when it is set, a running conversion is abandoned.

    Raises:
        InvalidInput: it gives several scores a pair, or there is no such device or precision.
        Unavailable: no such GPU, or no ONNX file can be had.
    """
    _require_one_label(model)
    if runtime == "torch":
        from raglan.encoders.cross_torch import TorchCrossEncoder

        on_torch = TorchCrossEncoder(model, device=device, precision=precision)
        return CrossEncoder(
            (_scoring(on_torch.logits),), on_torch.device, on_torch.dtype, on_torch.uses
        )
    devices.require_cpu(device, runtime)
    loaded = sessions.open_file(
        cross_onnx_file(model, cache_dir, stopped=stopped),
        runtime,
        precision=precision,
        streams=streams,
        bulk=False,
    )
    return CrossEncoder(tuple(map(_scoring, loaded.streams)), loaded.device, loaded.dtype)


def _scoring(run: Callable[..., NDArray[np.float32]]) -> Score:
    def score(batch: Sequence[PairIds]) -> NDArray[np.float64]:
        ids, mask = sessions.pad([pair.ids for pair in batch])
        types = np.zeros_like(ids)
        for row, pair in enumerate(batch):
            types[row, : len(pair.types)] = pair.types
        return run(ids, mask, types).reshape(len(batch)).astype(np.float64)

    return score


def _require_one_label(model: EncoderModel) -> None:
    config = json.loads((model.path / "config.json").read_text("utf-8"))
    # transformers keeps the labels by name, and two where nothing is said.
    labels = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    if labels != 1:
        raise InvalidInput(
            f"The model in {model.path} gives {labels} scores a pair; a reranker needs one "
            "(num_labels=1)."
        )
