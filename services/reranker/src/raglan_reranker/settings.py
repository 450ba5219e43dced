"""Settings of the reranker."""

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


class RerankerSettings(GrpcSettings, env_prefix="RAGLAN_RERANKER_"):
    """Loading of the reranker's model and its budget a query."""

    port: int = Field(default=7103, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    max_unread_calls: PositiveInt = 48
    """Calls of one method that have arrived and were not read yet; past it they are refused before
    they cost anything."""

    engine: Literal["late-interaction", "cross-encoder", "llm", "http", "null"] = "late-interaction"
    """The scorer: MaxSim over an encoder's token vectors, a cross-encoder, a language model's
    verdict for yes or no (Qwen3-Reranker; on torch), or another server.
    null keeps the order and needs no model: for measuring the mesh."""

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    """A folder, the bundled encoder, or a hub id; for cross-encoder, one trained as such; with
    engine http, the name to ask the server for."""

    base_url: str = ""
    """Of engine http: the server's address up to `/rerank`, e.g. http://127.0.0.1:8080/v1."""

    api: Literal["cohere", "tei"] = "cohere"
    """The form engine http speaks: Cohere's, which most servers know, or TEI's."""

    api_key: SecretStr = SecretStr("")
    """Sent by engine http as a bearer token; empty sends none."""

    runtime: Literal["openvino", "onnx", "torch"] = "openvino"
    """Inference engine: OpenVINO or ONNX Runtime on a CPU, torch on a GPU or a CPU."""

    device: str = Field(default="auto", pattern=f"^({PATTERN})(,({PATTERN}))*$")
    """Device: auto, cpu, cuda or cuda:<number>; several, separated by commas, get a process
    each behind one queue. A missing GPU stops the start."""

    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    """Number format; auto takes the fastest measured to cost no quality: int8 for the bundled
    model, else bf16 where the CPU has it, f16 on a GPU."""

    cache_dir: Path = Field(default_factory=lambda: default_data_dir() / "models")
    """Folder of exported models. Embedder and reranker may share it."""

    streams: NonNegativeInt = 0
    """Batches that run at once on a CPU, one thread each; 0 means one a core."""

    blend: float | None = Field(default=None, ge=0, le=1)
    """Share of the model's score in the order; the rest is the retrieval score's. Unset, it is 0.5
    for late-interaction and 1 for models trained to rerank."""

    max_scored: PositiveInt = 20
    """Candidates scored a call, from the top; the others keep their order below."""

    max_tokens: NonNegativeInt = 0
    """Tokens of query and candidates scored a call; 0 means 65,536 on a GPU; on a CPU 1,200
    for late-interaction and 8,000 for models trained to rerank."""

    max_passage_tokens: NonNegativeInt = 0
    """Tokens of one candidate that are read; 0 means 384 on a CPU and what the model reads on a
    GPU."""

    instruction: str = ""
    """Of engine llm: its task; empty is the one that Qwen3-Reranker was trained with."""

    max_gap: NonNegativeFloat = 0
    """Candidates are not scored whose retrieval score lies further below the best, in standard
    deviations of the call's; 0 means 3 for late-interaction, else no limit."""

    cache_pairs: NonNegativeInt = 20_000
    """Scores of query and passage kept, 200 bytes each; 0 keeps none."""

    cache_vectors_mb: NonNegativeInt = 64
    """Megabytes of passages' token vectors that late-interaction keeps; 0 keeps none."""

    deadline_margin_ms: NonNegativeFloat = 15
    """Kept back for the way home: candidates that would end later than that are not scored."""

    max_candidates: PositiveInt = 1_000
    """Candidates one call may hold."""

    max_text_chars: PositiveInt = 100_000
    """Characters the query or one candidate may hold. Longer than the model's input is cut."""

    max_batch_tokens: NonNegativeInt = 0
    """Padded tokens a batch may hold; 0 means 256 on a CPU and 16,384 on a GPU."""

    max_waiting_texts: PositiveInt = 512
    """Texts admitted and not yet scored; past it, calls are refused with a time to return."""

    stalled_after_s: PositiveFloat = 30
    """Work that was started and brings nothing for so long makes the service NOT_SERVING."""

    @model_validator(mode="after")
    def _a_full_call_fits(self) -> Self:
        if self.max_scored + 1 > self.max_waiting_texts:
            raise ValueError(
                f"max_scored is {self.max_scored} and max_waiting_texts {self.max_waiting_texts}: "
                "a query with as many candidates would never be admitted"
            )
        return self
