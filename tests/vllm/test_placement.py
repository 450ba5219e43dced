"""`raglan plan` against vLLM itself: parameters of the models it builds, pages it would allocate.

Models are built without memory (torch's meta device) from public dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_configs import MODELS
from raglan_cli.placement import architecture, kv_cache, parameters
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    cleanup_dist_env_and_memory,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_layout import KVCacheLayout

CONTEXT = 8192
BATCHED = 2048


def configured(folder: Path, config: dict[str, Any]) -> VllmConfig:
    (folder / "config.json").write_text(json.dumps(config))
    made = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        max_model_len=min(CONTEXT, config["max_position_embeddings"]),
        max_num_batched_tokens=BATCHED,
    ).create_engine_config()
    # What a GPU has, in place of the choices for a CPU: pages of 16 tokens, layer by layer, and a
    # step that is planned while another runs.
    made.scheduler_config.async_scheduling = True
    made.cache_config.block_size = kv_cache.BLOCK
    made.cache_config.kv_cache_layout = KVCacheLayout.LBNHC.name
    return made


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """vLLM's groups of processes, of this one alone."""
    store = tmp_path_factory.mktemp("store") / "store"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{store}", 0, backend="gloo")
        initialize_model_parallel()
        yield
    cleanup_dist_env_and_memory()


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_pages_are_vllms(name: str, tmp_path: Path, one_process: None) -> None:
    raw = MODELS[name].config
    config = configured(tmp_path, raw)
    with set_current_vllm_config(config), torch.device("meta"):
        built = initialize_model(vllm_config=config)
    model = architecture.read(raw)
    assert sum(p.numel() for p in built.parameters()) == pytest.approx(
        parameters.count(model).total, rel=1e-3
    )
    layers = config.compilation_config.static_forward_context
    # Kernels of the CPU take pages of at least 32 tokens where there is a window.
    specs = {
        layer: spec.copy_with_new_block_size(kv_cache.BLOCK)
        for layer, attention in layers.items()
        if isinstance(attention, AttentionLayerBase)
        and (spec := attention.get_kv_cache_spec(config)) is not None
    }
    groups = kv_cache_utils.get_kv_cache_groups(config, specs)
    expected = kv_cache_utils._max_memory_usage_bytes_from_groups(config, groups)
    ours = kv_cache.kv_cache(
        model, context=config.model_config.max_model_len, batched_tokens=BATCHED
    )
    assert ours.bytes_per_stream == expected
