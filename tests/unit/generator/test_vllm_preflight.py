"""What is known to fail before vLLM is started; vLLM is not installed where these tests run."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from raglan.errors import InvalidInput, Unavailable
from raglan_generator.engines import vllm_preflight as preflight
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.engines.vllm_options import VllmOptions

GIB = 1 << 30
FITTING = preflight.Memory(
    weights=15 * GIB, kv=2 * GIB, kv_pool=None, has=20 * GIB, device="cuda", where="0.9 of it"
)


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("0.32.0", True),
        ("0.32.1", True),
        ("0.32.0+cpu", True),
        ("0.32.1rc1", True),
        ("0.31.0", False),
        ("0.33.0", False),
        ("1.0", False),
    ],
)
def test_versions_fit_by_the_extra_of_this_package(version: str, fits: bool) -> None:
    assert preflight.fits(version, preflight.supported()) is fits


async def test_without_vllm_the_engine_says_how_to_get_it() -> None:
    assert preflight.installed() is None
    model = VllmModel("/models/any", VllmOptions())
    with pytest.raises(Unavailable, match=r"make venv-vllm.*raglan-generator\[vllm\]"):
        await model.start()
    await model.close()


@pytest.mark.parametrize("model", ["/no/where", "./no", "~/no-such-folder", "a/b/c"])
def test_a_path_is_not_taken_for_a_name_on_the_hub(model: str) -> None:
    with pytest.raises(Unavailable, match="There is no folder"):
        preflight.folder_of(model, "", "RAGLAN_GENERATOR_MODEL")


def adapter(folder: Path, config: str) -> str:
    (folder / "adapter_config.json").write_text(config)
    return str(folder)


def test_the_largest_adapter_decides(tmp_path: Path) -> None:
    folders = {}
    for rank in (4, 64):
        (tmp_path / str(rank)).mkdir()
        folders[f"r{rank}"] = adapter(tmp_path / str(rank), json.dumps({"r": rank}))
    assert preflight.largest_rank(folders, 512) == 64
    assert preflight.largest_rank({}, 512) == 0


@pytest.mark.parametrize("config", ["", "{", "{}", "[]", '{"r": "large"}', '{"r": null}'])
def test_an_adapter_that_says_no_rank_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(InvalidInput, match=r"'legal'.*adapter_config\.json"):
        preflight.largest_rank({"legal": adapter(tmp_path, config)}, 512)


def test_an_adapter_that_is_too_large_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="rank 600; the limit is 512"):
        preflight.largest_rank({"legal": adapter(tmp_path, '{"r": 600}')}, 512)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """1,000 numbers of 4 bytes, 100 of 2, 10 whole ones of 1; headers alone."""
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [10, 100], "data_offsets": [0, 0]},
        "b": {"dtype": "BF16", "shape": [100], "data_offsets": [0, 0]},
        "c": {"dtype": "U8", "shape": [10], "data_offsets": [0, 0]},
    }
    encoded = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded)
    return tmp_path


@pytest.mark.parametrize(
    ("dtype", "quantising", "size"),
    [("float32", False, 4_210), ("bfloat16", False, 2_210), ("bfloat16", True, 560)],
)
def test_weights_take_what_they_are_turned_into(
    weights: Path, dtype: str, quantising: bool, size: int
) -> None:
    assert preflight.weights_bytes(weights, dtype, quantising=quantising) == size


def test_of_weights_that_are_not_here_nothing_is_claimed() -> None:
    assert preflight.weights_bytes(None, "bfloat16", quantising=False) == 0


def test_a_model_that_fits_is_let_through() -> None:
    preflight.check_memory(FITTING)
    preflight.check_memory(replace(FITTING, kv_pool=5 * GIB))


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (replace(FITTING, has=16 * GIB), ("17.0 GiB", "15.0 GiB", "2.0 GiB", "has 16.0 GiB")),
        (replace(FITTING, kv_pool=6 * GIB), ("21.0 GiB", "6.0 GiB", "has 20.0 GiB")),
        (replace(FITTING, kv_pool=1 * GIB), ("needs 2.0 GiB", "1.0 GiB are set aside")),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_both_numbers(
    memory: preflight.Memory, words: tuple[str, ...]
) -> None:
    with pytest.raises(Unavailable) as refused:
        preflight.check_memory(memory)
    assert [word for word in words if word not in refused.value.message] == []
