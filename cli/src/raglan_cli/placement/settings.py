"""Settings of the services that a plan decides."""

from __future__ import annotations

from typing import Final

from raglan_cli.placement.encoders import MAX_BATCH_TOKENS
from raglan_cli.placement.planning import Plan

ENGINE_FIELD: Final = {"embedder": "engine", "reranker": "runtime"}
"""Setting by which an encoder is made to run on a GPU."""


def generator_settings(plan: Plan, model: str) -> dict[str, str | int | float]:
    """Return the generator's settings, by the names of its settings class.

    Args:
        plan: one with a placement of the generator.
        model: hub id or folder that the service loads; empty leaves it to the deployment.
    """
    assert plan.placement is not None
    shares = plan.placement.of("generator")
    asked = plan.request.model
    return {
        "engine": "vllm",
        **({"model": model} if model else {}),
        "max_model_len": plan.request.context,
        "max_num_seqs": plan.request.streams,
        "max_num_batched_tokens": plan.batched_tokens,
        "gpu_memory_utilization": shares[0].share,
        "tensor_parallel_size": len(shares),
        **({"quantization": asked.quantization} if asked and asked.quantization else {}),
    }


def encoder_settings(service: str, device: str) -> dict[str, str | int | float]:
    """Return the settings of embedder or reranker on a GPU.

    Args:
        service: embedder or reranker.
        device: as the process sees it, such as cuda:0.
    """
    return {
        ENGINE_FIELD[service]: "torch",
        "device": device,
        "max_batch_tokens": MAX_BATCH_TOKENS,
    }
