"""Memory of a language model under vLLM, on each GPU that it is split over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from raglan_cli.placement.architecture import Architecture, LatentAttention
from raglan_cli.placement.kv_cache import KvCache, kv_cache
from raglan_cli.placement.parameters import Parameters, count
from raglan_cli.placement.quantisation import Precision
from raglan_cli.placement.sizes import GIB

RUNTIME: Final = GIB
"""CUDA context, libraries' workspaces and buffers between GPUs. An allowance: not computed."""

GRAPHS: Final = GIB // 2
"""CUDA graphs, which vLLM takes from the engine's share. An allowance: not computed."""

_SAMPLER_BYTES: Final = 20
"""A logit as float32, its probability, and their sorted copies with places of 64 bits."""


@dataclass(frozen=True)
class ModelMemory:
    """Bytes on each GPU."""

    weights: int
    activations: int
    """The largest step's intermediate values, an upper bound."""
    runtime: int
    kv: KvCache
    streams: int

    @property
    def kv_bytes(self) -> int:
        """Of all streams at the full context; one more page is vLLM's own."""
        return self.kv.bytes_per_block * (self.kv.blocks_per_stream * self.streams + 1)

    @property
    def without_kv(self) -> int:
        """What is taken before the first stream."""
        return self.weights + self.activations + self.runtime

    @property
    def total(self) -> int:
        """What the engine needs for all streams."""
        return self.without_kv + self.kv_bytes

    def streams_within(self, size: int) -> int:
        """Streams of the full context that `size` bytes of the engine hold."""
        left = size - self.without_kv - self.kv.bytes_per_block
        return max(0, left // self.kv.bytes_per_stream)

    def for_streams(self, streams: int) -> ModelMemory:
        """Return the same for another number of streams."""
        return replace(self, streams=streams)


@dataclass(frozen=True)
class Workload:
    """What is asked of the generator."""

    context: int
    streams: int
    batched_tokens: int


def model_memory(
    model: Architecture,
    precision: Precision,
    workload: Workload,
    *,
    tensor_parallel: int = 1,
    checkpoint_bytes: int | None = None,
) -> ModelMemory:
    """Compute the memory that `model` needs on each of `tensor_parallel` GPUs.

    Args:
        model: its dimensions.
        precision: of its weights.
        workload: context, streams and tokens of a step.
        tensor_parallel: GPUs it is split over.
        checkpoint_bytes: of its weight files, which stand in place of the counted parameters.
    """
    parameters = count(model)
    weights = weight_bytes(model, parameters, precision, tensor_parallel)
    if checkpoint_bytes is not None:
        counted = weight_bytes(model, parameters, precision, 1)
        weights = round(weights * checkpoint_bytes / counted)
    return ModelMemory(
        weights=weights,
        activations=activation_bytes(model, workload, tensor_parallel),
        runtime=RUNTIME + GRAPHS,
        kv=kv_cache(
            model,
            context=workload.context,
            batched_tokens=workload.batched_tokens,
            tensor_parallel=tensor_parallel,
        ),
        streams=workload.streams,
    )


def weight_bytes(
    model: Architecture, parameters: Parameters, precision: Precision, tensor_parallel: int
) -> int:
    """Compute the bytes of the weights on each GPU."""
    attention = model.attention
    kv_split = tensor_parallel
    if not isinstance(attention, LatentAttention):
        kv_split = min(tensor_parallel, attention.kv_heads)
    split = parameters.linear / tensor_parallel + parameters.kv_projection / kv_split
    linear = (split + parameters.latent) * precision.linear
    experts = parameters.experts / tensor_parallel * precision.experts
    other = parameters.embedding / tensor_parallel + parameters.replicated
    return round(linear + experts + (other + parameters.vision) * precision.other)


def activation_bytes(model: Architecture, workload: Workload, tensor_parallel: int) -> int:
    """Bound the intermediate values of the largest step, and those of sampling.

    A step holds the residual and its normed copy beside the widest part of a layer: queries, keys,
    values and outputs, or the feed-forward network before and after its gate.
    """
    tokens, attention = workload.batched_tokens, model.attention
    if isinstance(attention, LatentAttention):
        width = attention.nope_dim + attention.rope_dim + attention.value_dim
        heads = 2 * attention.heads * width // tensor_parallel + attention.q_rank
    else:
        kv_heads = max(1, attention.kv_heads // tensor_parallel)
        heads = (2 * attention.heads // tensor_parallel + 2 * kv_heads) * attention.head_dim
    network = 3 * model.intermediate // tensor_parallel
    if experts := model.experts:
        routed = experts.per_token * (3 * experts.intermediate // tensor_parallel + model.hidden)
        network = max(network, routed + 3 * experts.shared_intermediate // tensor_parallel)
    step = tokens * 2 * (4 * model.hidden + max(heads, network))
    return step + workload.streams * model.vocabulary * _SAMPLER_BYTES
