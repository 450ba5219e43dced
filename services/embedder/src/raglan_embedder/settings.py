"""Settings of the embedder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)
from raglan.encoders.device import Attention
from raglan.encoders.settings import EncoderSettings


class EmbedderSettings(EncoderSettings, env_prefix="RAGLAN_EMBEDDER_"):
    """Loading of the embedder's model and filling of its batches."""

    port: int = Field(default=7101, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    engine: Literal["openvino", "onnx", "torch", "http", "null"] = "openvino"
    """Inference engine: OpenVINO or ONNX Runtime on a CPU, torch on a GPU or a CPU, or another
    server over HTTP. null needs no model and is for measuring the mesh."""

    base_url: str = ""
    """Of engine http: the server's address up to `/v1`, e.g. http://127.0.0.1:8080/v1; of TEI's
    own form, up to `/embed`."""

    api: Literal["openai", "tei"] = "openai"
    """The form engine http speaks: OpenAI's `/embeddings`, or TEI's `/embed`."""

    query_prompt: str = ""
    """Goes before a query, in place of the model's own prompt; empty keeps that one."""

    passage_prompt: str = ""
    """Goes before a passage, in place of the model's own prompt; empty keeps that one."""

    pooling: Literal["", "mean", "cls"] = ""
    """Pooling of token vectors, for a model whose files name none: mean or cls. One that does
    not say is refused without it."""

    attention: Attention = "sdpa"
    """Attention kernel of the torch engine. flash_attention_2 needs its package and a GPU and
    runs batches without padding, for models that support it."""

    torch_compile: bool = False
    """Let torch compile the model: a slower start, and faster batches on some devices."""

    max_batch_tokens: NonNegativeInt = 0
    """Padded tokens a batch may hold; 0 means 512 on a CPU and 16,384 on a GPU."""

    max_batch_texts: NonNegativeInt = 0
    """Texts a batch may hold; 0 means 8 on a CPU, 256 on a GPU and 32 with engine http."""

    max_texts: PositiveInt = 256
    """Texts one call may hold."""

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

    @model_validator(mode="after")
    def _a_full_call_fits(self) -> Self:
        if self.max_texts > self.max_waiting_texts:
            raise ValueError(
                f"max_texts is {self.max_texts} and max_waiting_texts {self.max_waiting_texts}: "
                "a full call would never be admitted"
            )
        return self
