"""Settings that every service with an encoder has."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr

from raglan.encoders.device import PATTERN, Precision
from raglan.encoders.model import DEFAULT_MODEL
from raglan.settings import GrpcSettings, default_data_dir


class EncoderSettings(GrpcSettings):
    """Loading of a model, and its limits."""

    max_unread_calls: PositiveInt = 128
    """Calls of one method that have arrived and were not read yet; past it they are refused before
    they cost anything."""

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A folder, the bundled model, or a Hugging Face hub id; with engine http, the name to ask
    the server for."""

    api_key: SecretStr = SecretStr("")
    """Sent by engine http as a bearer token; empty sends none."""

    device: str = Field(default="auto", pattern=f"^({PATTERN})(,({PATTERN}))*$")
    """Device: auto, cpu, cuda, cuda:<number> or a GPU's UUID (`nvidia-smi -L`; its beginning will
    do); several, separated by commas, get a process each behind one queue. A missing GPU stops the
    start."""

    precision: Precision = "auto"
    """Number format; auto takes the fastest measured to cost no quality: int8 for the bundled
    model, else bf16 where the CPU has it, f16 on a GPU. `raglan parity embedder` tells what int8
    costs another model."""

    cache_dir: Path = Field(default_factory=lambda: default_data_dir() / "models")
    """Folder of exported models. Embedder and reranker may share it."""

    streams: NonNegativeInt = 0
    """Batches that run at once on a CPU, one thread each; 0 means one a core."""

    max_text_chars: PositiveInt = 100_000
    """Characters one text may hold. Text beyond the model's input is cut."""

    stalled_after_s: PositiveFloat = 30
    """Work that was started and brings nothing for so long makes the service NOT_SERVING."""
