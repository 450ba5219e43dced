"""Settings of the reranker."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)
from raglan.encoders.device import SessionEngine
from raglan.encoders.settings import EncoderSettings


class RerankerSettings(EncoderSettings, env_prefix="RAGLAN_RERANKER_"):
    """Loading of the reranker's model and its budget a query."""

    port: int = Field(default=7103, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    engine: Literal["late-interaction", "cross-encoder", "llm", "http", "null"] = "late-interaction"
    """The scorer: MaxSim over an encoder's token vectors, a cross-encoder (`model` must be one), a
    language model's verdict for yes or no (Qwen3-Reranker; on torch), or another server. null keeps
    the order and needs no model: for measuring the mesh."""

    base_url: str = ""
    """Of engine http: the server's address up to `/rerank`, e.g. http://127.0.0.1:8080/v1."""

    api: Literal["cohere", "tei"] = "cohere"
    """The form engine http speaks: Cohere's, which most servers know, or TEI's."""

    runtime: SessionEngine = "openvino"
    """Inference engine: OpenVINO or ONNX Runtime on a CPU, torch on a GPU or a CPU."""

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

    max_batch_tokens: NonNegativeInt = 0
    """Padded tokens a batch may hold; 0 means 256 on a CPU and 16,384 on a GPU."""

    max_waiting_texts: PositiveInt = 512
    """Texts admitted and not yet scored; past it, calls are refused with a time to return."""

    @model_validator(mode="after")
    def _a_full_call_fits(self) -> Self:
        if self.max_scored + 1 > self.max_waiting_texts:
            raise ValueError(
                f"max_scored is {self.max_scored} and max_waiting_texts {self.max_waiting_texts}: "
                "a query with as many candidates would never be admitted"
            )
        return self
