"""What cannot start says why in a sentence, before vLLM is tried."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from answers import OPTIONS
from raglan.errors import InvalidInput, RaglanError, Unavailable
from raglan_generator.engines.vllm import VllmModel

GIB = 1 << 30


@pytest.fixture
def copied(model_folder: Path, tmp_path: Path) -> Path:
    """A model that the test may change."""
    return shutil.copytree(model_folder, tmp_path / "copied")


async def refused(model: VllmModel, error: type[RaglanError], *words: str) -> None:
    """It does not start, and says all of `words`."""
    with pytest.raises(error) as raised:
        await model.start()
    await model.close()
    assert [word for word in words if word not in raised.value.message] == [], raised.value


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    await refused(VllmModel(missing, OPTIONS), Unavailable, missing, "RAGLAN_GENERATOR_MODEL")


async def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    await refused(VllmModel(str(tmp_path), OPTIONS), Unavailable, str(tmp_path), "config.json")


async def test_a_hub_id_is_not_fetched_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    # Read from the environment when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = VllmModel("raglan-tests/no-such-model", OPTIONS)
    await refused(model, Unavailable, "raglan-tests/no-such-model", "HF_HUB_OFFLINE")


async def test_a_draft_model_that_does_not_exist_is_named(model_folder: Path) -> None:
    speculation = {"method": "draft_model", "model": "/no/draft", "num_speculative_tokens": 2}
    options = OPTIONS.model_validate(OPTIONS.model_dump() | {"speculation": speculation})
    model = VllmModel(str(model_folder), options)
    await refused(model, Unavailable, "/no/draft", "RAGLAN_GENERATOR_SPECULATION")


async def test_an_adapter_that_does_not_exist_is_named(model_folder: Path) -> None:
    model = VllmModel(str(model_folder), OPTIONS, adapters={"legal": "/no/adapter"})
    await refused(model, InvalidInput, "'legal'", "/no/adapter", "RAGLAN_GENERATOR_ADAPTERS")


async def test_a_model_that_does_not_fit_says_what_it_needs_and_what_there_is(copied: Path) -> None:
    tensor = {"dtype": "BF16", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 2 << 40]}
    header = json.dumps({"model.huge": tensor}).encode()
    (copied / "huge.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    await refused(VllmModel(str(copied), OPTIONS), Unavailable, "2048.0 GiB for weights", "It has")


async def test_a_length_that_does_not_fit_says_what_it_needs_and_what_there_is(
    copied: Path,
) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["max_position_embeddings"] = 1 << 20
    (copied / "config.json").write_text(json.dumps(config))
    # Keys and values: 4 layers, 2 heads of 64 numbers, 2 bytes each.
    needs = 2 * 4 * 2 * 64 * 2 * (1 << 20) / GIB
    await refused(
        VllmModel(str(copied), OPTIONS),
        Unavailable,
        f"{needs:.1f} GiB",
        "1.0 GiB are set aside",
        "RAGLAN_GENERATOR_MAX_MODEL_LEN",
    )


async def test_a_model_that_vllm_does_not_know_is_refused_in_its_words(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "nonsense", "architectures": ["NonsenseForCausalLM"]}
    (copied / "config.json").write_text(json.dumps(config))
    await refused(VllmModel(str(copied), OPTIONS), InvalidInput, "nonsense")
