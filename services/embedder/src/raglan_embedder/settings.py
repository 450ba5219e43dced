"""Settings of the embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from raglan.encoders.device import PATTERN
from raglan.encoders.model import DEFAULT_MODEL
from raglan.settings import GrpcSettings, default_data_dir


class EmbedderSettings(GrpcSettings, env_prefix="RAGLAN_EMBEDDER_"):
    """Loading of the embedder's model and filling of its batches."""

    port: int = Field(default=7101, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    max_unread_calls: PositiveInt = 48
    """Calls of one method that have arrived and were not read yet; past it they are refused before
    they cost anything."""

    engine: Literal["openvino", "onnx", "torch", "http", "null"] = "openvino"
    """Inference engine: OpenVINO or ONNX Runtime on a CPU, torch on a GPU or a CPU, or another
    server over HTTP. null needs no model and is for measuring the mesh."""

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A folder, the bundled model, or a Hugging Face hub id; with engine http, the name to ask
    the server for."""

    base_url: str = ""
    """Of engine http: the server's address up to `/v1`, e.g. http://127.0.0.1:8080/v1; of TEI's
    own form, up to `/embed`."""

    api: Literal["openai", "tei"] = "openai"
    """The form engine http speaks: OpenAI's `/embeddings`, or TEI's `/embed`."""

    api_key: SecretStr = SecretStr("")
    """Sent by engine http as a bearer token; empty sends none."""

    query_prompt: str = ""
    """Goes before a query, in place of the model's own prompt; empty keeps that one."""

    passage_prompt: str = ""
    """Goes before a passage, in place of the model's own prompt; empty keeps that one."""

    pooling: Literal["", "mean", "cls"] = ""
    """Pooling of token vectors, for a model whose files name none: mean or cls. One that does
    not say is refused without it."""

    device: str = Field(default="auto", pattern=f"^({PATTERN})(,({PATTERN}))*$")
    """Device: auto, cpu, cuda or cuda:<number>; several, separated by commas, get a process
    each behind one queue. A missing GPU stops the start."""

    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    """Number format. With OpenVINO, auto is int8 for the default model, whose loss is measured, and
    for others bf16 where the CPU has it; on a GPU f16; else f32. `raglan parity embedder` tells
    what int8 costs another model."""

    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    """Attention kernel of the torch engine. flash_attention_2 needs its package and a GPU and
    runs batches without padding, for models that support it."""

    torch_compile: bool = False
    """Let torch compile the model: a slower start, and faster batches on some devices."""

    cache_dir: Path = Field(default_factory=lambda: default_data_dir() / "models")
    """Folder of exported models. Embedder and reranker may share it."""

    streams: NonNegativeInt = 0
    """Batches that run at once on a CPU, one thread each; 0 means one a core."""

    max_batch_tokens: NonNegativeInt = 0
    """Padded tokens a batch may hold; 0 means 512 on a CPU and 16,384 on a GPU."""

    max_batch_texts: NonNegativeInt = 0
    """Texts a batch may hold; 0 means 8 on a CPU, 256 on a GPU and 32 with engine http."""

    max_texts: PositiveInt = 256
    """Texts one call may hold."""

    max_text_chars: PositiveInt = 100_000
    """Characters one text may hold. What is longer than the model's input is cut at the end."""

    max_waiting_texts: PositiveInt = 2_048
    """Texts admitted and not yet answered; past it, calls are refused with a time to return."""

    max_tokens: NonNegativeInt = 0
    """Tokens of a text that are read; the rest is cut. 0 means all the model can take."""

    cache_mb: NonNegativeInt = 32
    """Megabytes of vectors kept, so that a text seen before is not computed again; 0 keeps none."""

    bulk_share: float = Field(default=0.2, ge=0, lt=1)
    """On a GPU, the share of the work that bulk keeps while queries wait. On a CPU the kernel
    shares: bulk threads run at a lower priority."""

    deadline_margin_ms: NonNegativeFloat = 2
    """Kept back for the way home: what would end later than its deadline minus this is refused."""

    stalled_after_s: PositiveFloat = 30
    """Work that was started and brings nothing for so long makes the service NOT_SERVING."""

    @model_validator(mode="after")
    def _a_full_call_fits(self) -> Self:
        if self.max_texts > self.max_waiting_texts:
            raise ValueError(
                f"max_texts is {self.max_texts} and max_waiting_texts {self.max_waiting_texts}: "
                "a full call would never be admitted"
            )
        return self
