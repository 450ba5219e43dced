"""Keys and values, by figures worked out by hand after vLLM's rules.

tests/vllm/test_placement.py compares with vLLM itself.
"""

from __future__ import annotations

import pytest
from model_configs import DEEPSEEK_V3, GEMMA3_1B, GPT_OSS_20B, LLAMA_8B, LLAMA_70B, MISTRAL_7B
from raglan_cli.placement import architecture
from raglan_cli.placement.kv_cache import KvCache, kv_cache


def of(
    config: dict[str, object], context: int = 8192, gpus: int = 1, tokens: int = 2048
) -> KvCache:
    model = architecture.read(config)
    return kv_cache(model, context=context, batched_tokens=tokens, tensor_parallel=gpus)


@pytest.mark.parametrize(
    ("config", "a_token"),
    [(LLAMA_8B, 128 * 1024), (LLAMA_70B, 320 * 1024), (DEEPSEEK_V3, 70_272)],
    ids=["Llama-8B", "Llama-70B", "DeepSeek-V3"],
)
def test_bytes_a_token(config: dict[str, object], a_token: int) -> None:
    assert of(config).bytes_per_stream == 8192 * a_token


def test_a_page_is_begun_for_one_token() -> None:
    assert of(LLAMA_8B, 17).bytes_per_stream == 32 * 128 * 1024


def test_heads_are_split_and_then_repeated() -> None:
    whole = of(LLAMA_70B).bytes_per_stream
    assert of(LLAMA_70B, gpus=8).bytes_per_stream == whole / 8
    assert of(LLAMA_70B, gpus=16).bytes_per_stream == whole / 8


def test_latent_vectors_are_on_every_gpu() -> None:
    assert of(DEEPSEEK_V3, gpus=8) == of(DEEPSEEK_V3)


def test_a_window_bounds_a_long_stream() -> None:
    # The window, less the newest token, beside the tokens of two steps; one page for its edge.
    assert of(MISTRAL_7B, 32_768).blocks_per_stream == (4095 + 2 * 2048 + 15) // 16 + 1
    assert of(MISTRAL_7B, 4096).blocks_per_stream == 4096 // 16 + 1


def test_layers_of_two_kinds_share_pages_of_one_size() -> None:
    # 12 and 12 layers: one group each.
    cache = of(GPT_OSS_20B, 131_072)
    assert cache.bytes_per_block == 12 * 16 * 8 * 2 * 64 * 2
    assert cache.blocks_per_stream == 8192 + (127 + 4096 + 15) // 16 + 1


def test_layers_are_padded_to_groups_of_the_rarer_kind() -> None:
    # 4 full layers and 22 with a window: one group, and six of which two are padded.
    cache = of(GEMMA3_1B, 32_768)
    assert cache.bytes_per_block == 4 * 16 * 1 * 2 * 256 * 2
    assert cache.blocks_per_stream == 2048 + 6 * ((511 + 4096 + 15) // 16 + 1)
