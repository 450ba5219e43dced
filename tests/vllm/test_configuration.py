"""What vLLM makes of the settings: read back from the configuration that the engine gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answers import OPTIONS
from raglan.errors import InvalidInput
from raglan_generator.engines import vllm_engine
from raglan_generator.engines.vllm_options import VllmOptions, engine_arguments

GIVEN = {
    "ngram": {"num_speculative_tokens": 7, "prompt_lookup_min": 3, "prompt_lookup_max": 6},
    "suffix": {
        "num_speculative_tokens": 9,
        "suffix_decoding_max_tree_depth": 17,
        "suffix_decoding_max_cached_requests": 123,
        "suffix_decoding_max_spec_factor": 1.75,
        "suffix_decoding_min_token_prob": 0.25,
    },
    "draft_model": {
        "num_speculative_tokens": 4,
        "max_model_len": 1_024,
        "draft_tensor_parallel_size": 1,
        "revision": "main",
        "draft_sample_method": "probabilistic",
        "rejection_sample_method": "block",
    },
}


def built(model: Path, options: VllmOptions, **more: Any) -> Any:
    """vLLM's configuration."""
    given = {"max_model_len": None, "max_loras": 0, "max_lora_rank": 0, "shutdown_timeout_s": 10}
    return vllm_engine.config_of(engine_arguments(options, model=str(model), **(given | more)))


def test_every_setting_reaches_the_engine(model_folder: Path) -> None:
    config = built(
        model_folder,
        VllmOptions(
            revision="main",
            dtype="float32",
            load_format="dummy",
            gpu_memory_utilization=0.5,
            max_num_seqs=3,
            max_num_batched_tokens=777,
            max_num_queued_reqs=5,
            max_num_queued_tokens=555,
            enable_prefix_caching=False,
            attention_backend="TRITON_ATTN",
            enforce_eager=True,
            otlp_traces_endpoint="http://127.0.0.1:1",
            reasoning_parser="qwen3",
        ),
        max_model_len=512,
        max_loras=2,
        max_lora_rank=9,
        shutdown_timeout_s=3,
    )
    model, scheduler = config.model_config, config.scheduler_config
    assert (model.model, model.revision, str(model.dtype)) == (
        str(model_folder),
        "main",
        "torch.float32",
    )
    assert (model.max_model_len, model.enforce_eager) == (512, True)
    assert config.attention_config.backend.name == "TRITON_ATTN"
    assert config.load_config.load_format == "dummy"
    assert config.cache_config.gpu_memory_utilization == 0.5
    assert config.cache_config.enable_prefix_caching is False
    assert (scheduler.max_num_seqs, scheduler.max_num_batched_tokens) == (3, 777)
    assert (scheduler.max_num_queued_reqs, scheduler.max_num_queued_tokens) == (5, 555)
    assert scheduler.policy == "priority"
    assert (config.lora_config.max_loras, config.lora_config.max_lora_rank) == (2, 16)
    assert config.shutdown_timeout == 3
    assert config.structured_outputs_config.reasoning_parser == "qwen3"
    assert config.observability_config.otlp_traces_endpoint == "http://127.0.0.1:1"


def test_devices_and_quantisation_reach_the_arguments(
    model_folder: Path,
) -> None:
    """Devices and quantisation reach the arguments of a machine without gpus."""
    options = VllmOptions(tensor_parallel_size=4, quantization="fp8")
    arguments = engine_arguments(
        options,
        model=str(model_folder),
        max_model_len=None,
        max_loras=0,
        max_lora_rank=0,
        shutdown_timeout_s=1,
    )
    made = vllm_engine.AsyncEngineArgs(**arguments)
    assert (made.tensor_parallel_size, made.quantization) == (4, "fp8")


@pytest.mark.parametrize("method", GIVEN)
def test_every_field_of_speculation_reaches_the_engine(model_folder: Path, method: str) -> None:
    fields = GIVEN[method] | {"method": method}
    if method == "draft_model":
        fields["model"] = str(model_folder)
    options = VllmOptions(enforce_eager=True, speculation=json.dumps(fields))
    assert options.speculation is not None
    # A field that is added to ours must be set here too.
    unset = type(options.speculation).model_fields.keys() - fields.keys()
    assert unset <= {"quantization"}, unset
    speculative = built(model_folder, options).speculative_config
    assert {name: getattr(speculative, name) for name in fields} == fields


def test_without_settings_a_server_is_what_vllm_sizes_its_batches_for(model_folder: Path) -> None:
    scheduler = built(model_folder, OPTIONS).scheduler_config
    arguments = vllm_engine.AsyncEngineArgs(model=str(model_folder), enforce_eager=True)
    context = vllm_engine.UsageContext.OPENAI_API_SERVER
    served = arguments.create_engine_config(usage_context=context).scheduler_config
    assert scheduler.max_num_batched_tokens == served.max_num_batched_tokens
    assert scheduler.max_num_seqs == served.max_num_seqs


def test_what_vllm_refuses_is_said_in_its_words(model_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="max_model_len"):
        built(model_folder, OPTIONS, max_model_len=1_000_000)
