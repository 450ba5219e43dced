"""Keys and values by vLLM's arithmetic: pages of 16 tokens, groups of like layers.

After `vllm.v1.kv_cache_interface` and `vllm.v1.core.kv_cache_utils` of vLLM 0.32. Where a model
mixes sliding and full attention, vLLM pads the layers to groups of one size and gives every group
pages of its own; a sliding layer keeps its window and what is being computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from raglan_cli.placement.architecture import Architecture, LatentAttention

BLOCK: Final = 16
"""Tokens of a page, vLLM's default on a GPU."""

BATCHES_IN_FLIGHT: Final = 2
"""With asynchronous scheduling one step is planned while another runs."""

_PADDED_GROUPS: Final = 1.5
"""Layers of two kinds whose counts differ by less are padded to the larger count."""


@dataclass(frozen=True)
class KvCache:
    """Memory of keys and values on each GPU."""

    bytes_per_block: int
    """Of one page in every layer of a group."""
    blocks_per_stream: int
    """Pages of one stream of the full context, over all groups."""

    @property
    def bytes_per_stream(self) -> int:
        """Of one stream of the full context."""
        return self.bytes_per_block * self.blocks_per_stream


def page_bytes(model: Architecture, tensor_parallel: int, element: int = 2) -> int:
    """Return the bytes of one page of one layer on each GPU.

    Latent vectors cannot be split: each GPU keeps them in whole, as it does a head of keys and
    values where there are fewer heads than GPUs.

    Args:
        model: of the cache.
        tensor_parallel: GPUs that the model is split over.
        element: bytes of a number.
    """
    attention = model.attention
    if isinstance(attention, LatentAttention):
        return BLOCK * (attention.kv_rank + attention.rope_dim) * element
    heads = max(1, attention.kv_heads // tensor_parallel)
    return BLOCK * heads * 2 * attention.head_dim * element


def kv_cache(
    model: Architecture, *, context: int, batched_tokens: int, tensor_parallel: int = 1
) -> KvCache:
    """Compute what a stream of `context` tokens takes.

    Args:
        model: of the cache.
        context: tokens of prompt and answer together.
        batched_tokens: of one step of the engine; a sliding layer keeps those of two.
        tensor_parallel: GPUs that the model is split over.
    """
    page = page_bytes(model, tensor_parallel)
    sliding = len(model.sliding)
    full = model.layers - sliding
    full_blocks = math.ceil(context / BLOCK)
    held = min(model.window - 1 + BATCHES_IN_FLIGHT * batched_tokens, context)
    sliding_blocks = math.ceil(held / BLOCK) + 1
    if not sliding:
        return KvCache(page * full, full_blocks)
    if not full:
        return KvCache(page * sliding, sliding_blocks)
    few, many = sorted((full, sliding))
    group = many if many < few * _PADDED_GROUPS else few
    blocks = math.ceil(full / group) * full_blocks + math.ceil(sliding / group) * sliding_blocks
    return KvCache(page * group, blocks)
