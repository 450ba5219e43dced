"""vLLM's options: our settings, translated into its arguments.

Nothing here imports vLLM, so that settings can be read, checked and documented without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import NoDecode, SettingsConfigDict
from raglan.scheduling import Lane

_FIELDS: Final = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Ngram(BaseModel):
    """Proposes what followed the same tokens earlier in the prompt: suits answers that quote."""

    model_config = _FIELDS

    method: Literal["ngram"]
    num_speculative_tokens: PositiveInt
    """Tokens proposed at a time."""
    prompt_lookup_min: PositiveInt = 2
    """Shortest run of tokens that is looked for."""
    prompt_lookup_max: PositiveInt = 5
    """Longest run of tokens that is looked for; it is tried first."""


class Suffix(BaseModel):
    """Proposes by the suffix tree of the prompt and of earlier answers (needs arctic-inference)."""

    model_config = _FIELDS

    method: Literal["suffix"]
    num_speculative_tokens: PositiveInt = 24
    """Most tokens proposed at a time."""
    suffix_decoding_max_tree_depth: PositiveInt = 24
    """Length of the match and of the proposal together."""
    suffix_decoding_max_cached_requests: NonNegativeInt = 0
    """Earlier answers that are remembered; 0 proposes from the prompt and the answer themselves.
    All tenants share them, so that the pace of an answer may tell what others were answered."""
    suffix_decoding_max_spec_factor: NonNegativeFloat = 1.0
    """Tokens proposed for each token matched."""
    suffix_decoding_min_token_prob: float = Field(default=0.1, ge=0, le=1)
    """Share of the earlier texts in which a proposed token must have come next."""


class DraftModel(BaseModel):
    """Proposes by a smaller model of the same vocabulary."""

    model_config = _FIELDS

    method: Literal["draft_model"]
    model: str
    """Folder or hub id of the smaller model."""
    num_speculative_tokens: PositiveInt
    """Tokens proposed at a time."""
    revision: str | None = None
    """Branch, tag or commit of the smaller model on the hub."""
    quantization: str | None = None
    """Its quantisation, as for the model itself."""
    max_model_len: PositiveInt | None = None
    """Longer sequences are not speculated on."""
    draft_tensor_parallel_size: PositiveInt | None = None
    """GPUs it is split over: 1, or as many as the model."""
    draft_sample_method: Literal["greedy", "probabilistic"] = "greedy"
    """Proposal of draft tokens: the likeliest, or sampled."""
    rejection_sample_method: Literal["standard", "block"] = "standard"
    """Verification of draft tokens: one by one, or as a block."""


Speculation = Annotated[Ngram | Suffix | DraftModel, Field(discriminator="method")]


def _from_json(value: object) -> object:
    """A setting's text as JSON; an empty one is none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None


class VllmOptions(BaseModel):
    """Settings of the `vllm` engine other than the model, its adapters and its sampling.

    Names are vLLM's own wherever it has one.
    """

    model_config = SettingsConfigDict(frozen=True, use_attribute_docstrings=True)

    revision: str = ""
    """Branch, tag or commit of a model on the hub."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights and of the computation; auto is the model's own."""

    quantization: str = ""
    """Quantise the weights while they load, e.g. fp8; empty for as the model says."""

    load_format: Literal["auto", "safetensors", "dummy"] = "auto"
    """Loading of weights; `dummy` makes random ones, for measurements."""

    tensor_parallel_size: PositiveInt = 1
    """GPUs that the model is split over."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that is taken: weights, then keys and values."""

    max_num_seqs: PositiveInt | None = None
    """Answers written at the same time; empty for vLLM's choice by device (H200: 1,024)."""

    max_num_batched_tokens: PositiveInt | None = None
    """Tokens of one step: prompts are read in parts of it. Empty for vLLM's choice by device."""

    max_num_queued_reqs: PositiveInt = 2_048
    """Answers waited for and written together; past it requests are refused as overloaded."""

    max_num_queued_tokens: PositiveInt = 1_000_000
    """Tokens of prompts that are not read yet; past it requests are refused as overloaded."""

    enable_prefix_caching: bool = True
    """Reuse the keys and values of a prompt's beginning for later prompts that share it."""

    attention_backend: str = ""
    """vLLM's attention kernels, e.g. TRITON_ATTN where those that it chooses do not run on the GPU
    (DGX Spark); empty for vLLM's choice."""

    enforce_eager: bool = False
    """Skip compilation and CUDA graphs: starts sooner, answers slower."""

    speculation: Annotated[Speculation | None, NoDecode, BeforeValidator(_from_json)] = None
    """Speculative decoding, as JSON with its `method` (`ngram`, `suffix` or `draft_model`), e.g.
    {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 5}; empty for none."""

    reasoning_parser: str = ""
    """vLLM's parser of the model's reasoning, e.g. qwen3, mistral or openai_gptoss; empty reads the
    usual tags in its text."""

    bulk_wait_s: NonNegativeFloat = 10
    """A bulk request yields to interactive ones that come up to so many seconds after it."""

    stalled_after_s: PositiveFloat = 30
    """Work without any sign of progress for so long means NOT_SERVING, until there is one."""

    otlp_traces_endpoint: str = ""
    """Collector of vLLM's own spans of each request, e.g. http://collector:4317; empty
    for none."""


def engine_arguments(
    options: VllmOptions,
    *,
    model: str,
    max_model_len: int | None,
    max_loras: int,
    max_lora_rank: int,
    shutdown_timeout_s: int,
) -> dict[str, Any]:
    """The arguments of vLLM's `AsyncEngineArgs`; what is left out stays vLLM's own choice.

    Args:
        options: as set.
        model: folder or hub id.
        max_model_len: tokens of prompt and answer together; None for the model's own.
        max_loras: adapters that one step may mix; 0 for a model without.
        max_lora_rank: of the largest adapter.
        shutdown_timeout_s: that running answers have to finish when the engine is stopped.
    """
    speculation = options.speculation
    arguments: dict[str, Any] = {
        "model": model,
        "revision": options.revision or None,
        "dtype": options.dtype,
        "quantization": options.quantization or None,
        "load_format": options.load_format,
        "tensor_parallel_size": options.tensor_parallel_size,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "max_model_len": max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "max_num_queued_reqs": options.max_num_queued_reqs,
        "max_num_queued_tokens": options.max_num_queued_tokens,
        "enable_prefix_caching": options.enable_prefix_caching,
        "attention_backend": options.attention_backend or None,
        "enforce_eager": options.enforce_eager,
        "speculative_config": speculation and speculation.model_dump(exclude_none=True),
        "otlp_traces_endpoint": options.otlp_traces_endpoint or None,
        "scheduling_policy": "priority",
        # Where white space may stand between two tokens of JSON, some models write it for ever.
        "structured_outputs_config": {
            "backend": "guidance",
            "disable_any_whitespace": True,
            # A grammar applies to what follows the reasoning.
            "reasoning_parser": options.reasoning_parser,
        },
        "shutdown_timeout": shutdown_timeout_s,
        # Ours stand in their place, and nothing of a request is logged.
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if max_loras:
        arguments |= {
            "enable_lora": True,
            "max_loras": max_loras,
            "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= max_lora_rank),
        }
    return {name: value for name, value in arguments.items() if value is not None}


LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM supports; an adapter takes the next larger one."""


def priority(lane: Lane, arrived_s: float, bulk_wait_s: float) -> int:
    """Compute vLLM's priority of a request; the lowest is scheduled next.

    The time of arrival, in milliseconds, is the oldest first; a bulk request counts as come
    `bulk_wait_s` later. A waiting request thus overtakes all later ones: none starves, though
    vLLM itself knows no ageing.
    """
    wait_s = bulk_wait_s if lane is Lane.BULK else 0.0
    return round((arrived_s + wait_s) * 1e3)


def trace_headers(headers: Mapping[str, str], options: VllmOptions) -> dict[str, str] | None:
    """Select the trace headers for vLLM; None where it has no endpoint to send spans to."""
    return dict(headers) if headers and options.otlp_traces_endpoint else None
