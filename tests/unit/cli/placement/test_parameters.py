"""Counts of parameters against the published ones."""

from __future__ import annotations

import pytest
from model_configs import DEEPSEEK_V3, GPT_OSS_20B, LLAMA_8B, LLAMA_70B, MODELS, QWEN2_7B
from raglan_cli.placement import architecture, parameters, quantisation
from raglan_cli.placement.architecture import InvalidConfig
from raglan_cli.placement.encoders import BUNDLED, count
from raglan_cli.placement.model_memory import weight_bytes
from raglan_cli.placement.sizes import GB

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
GPTQ = AWQ | {"quant_method": "gptq"}
MXFP4 = {"quant_method": "mxfp4"}
INT4 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}},
}
BGE_M3 = {
    "model_type": "xlm-roberta",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 250_002,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_published(name: str) -> None:
    config, published = MODELS[name]
    assert parameters.count(architecture.read(config)).total == published


@pytest.mark.parametrize(
    ("config", "published"),
    [(BUNDLED, 22_713_216), (BGE_M3, 567_754_752)],
    ids=["MiniLM", "BGE-M3"],
)
def test_parameters_of_encoders(config: dict[str, object], published: int) -> None:
    assert count(config) == published


@pytest.mark.parametrize(
    ("config", "quantization", "gigabytes"),
    [
        (LLAMA_8B, {}, 16.06),
        (LLAMA_8B, AWQ, 5.73),
        (LLAMA_70B, AWQ, 39.77),
        (LLAMA_70B, INT4, 39.77),
        (QWEN2_7B, GPTQ, 5.58),
        (GPT_OSS_20B, MXFP4, 13.76),
        (DEEPSEEK_V3, {"quant_method": "fp8"}, 672.1),
    ],
    ids=["Llama-8B", "Llama-8B-AWQ", "70B-AWQ", "70B-w4a16", "Qwen-GPTQ", "gpt-oss", "DeepSeek"],
)
def test_weights_are_as_large_as_the_published_files(
    config: dict[str, object], quantization: dict[str, object], gigabytes: float
) -> None:
    model = architecture.read(config)
    precision = quantisation.of_config(quantization, model.dtype)
    size = weight_bytes(model, parameters.count(model), precision, 1)
    assert size / GB == pytest.approx(gigabytes, rel=0.01)


def test_each_gpu_has_its_part_and_what_cannot_be_split() -> None:
    model = architecture.read(LLAMA_70B)
    counted, precision = parameters.count(model), quantisation.of_config({}, "bfloat16")
    whole, half, sixteenth = (weight_bytes(model, counted, precision, n) for n in (1, 2, 16))
    norms = 2 * counted.replicated
    assert half == pytest.approx((whole + norms) / 2, abs=2)
    # 8 heads of keys and values on 16 GPUs: each head is there twice.
    twice = 2 * counted.kv_projection / 16
    assert sixteenth == pytest.approx((whole - norms) / 16 + norms + twice, abs=2)


def test_an_unknown_model_is_counted_with_a_note() -> None:
    model = architecture.read(LLAMA_8B | {"model_type": "solar"})
    assert parameters.count(model).total == MODELS["Llama-3.1-8B"].parameters
    assert "model_type solar" in model.notes[0]


def test_dimensions_of_the_text_model_of_a_multimodal_one() -> None:
    outer = {"architectures": ["X"], "text_config": LLAMA_8B, "vision_config": {"depth": 2}}
    assert architecture.read(outer).hidden == 4096


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "it has no hidden_size"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is '32'; it must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"vocab_size": None}, "it has no vocab_size"),
        ({"layer_types": ["linear_attention"] * 32}, "layers of kind linear_attention"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_a_config_that_cannot_be_planned_names_the_field(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidConfig, match=said):
        architecture.read(LLAMA_8B | change)


def test_an_unknown_quantisation_is_named() -> None:
    with pytest.raises(InvalidConfig, match="quant_method is 'quip'"):
        quantisation.of_config({"quant_method": "quip"}, "bfloat16")
