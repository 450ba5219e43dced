"""The command, and the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_configs import LLAMA_8B, LLAMA_70B
from raglan_embedder.settings import EmbedderSettings
from raglan_generator.settings import GeneratorSettings
from raglan_reranker.settings import RerankerSettings

Run = Callable[..., Any]

SETTINGS = {
    "embedder": EmbedderSettings,
    "reranker": RerankerSettings,
    "generator": GeneratorSettings,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "Llama-3.1-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


class Override(yaml.SafeLoader):
    """Knows Compose's tag for a list that replaces another."""


Override.add_constructor(
    "!override", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def test_a_plan_is_shown(raglan: Run, llama: Path) -> None:
    done = raglan("plan", "--gpu", "24GB", "--llm", llama, "--streams", 2)
    assert done.status == 0
    assert "8.03 billion parameters, weights in bfloat16." in done.out
    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == [
        "generator",
        "embedder",
        "reranker",
    ]


def test_a_plan_as_json(raglan: Run, llama: Path) -> None:
    done = raglan("plan", "--gpu", "2x24GB", "--llm", llama, "--streams", 3, "--json")
    found = json.loads(done.out)
    assert found["generator"]["weight_bytes"] == pytest.approx(16.06e9, rel=1e-3)
    assert found["generator"]["kv_bytes_per_stream"] == 8192 * 131_072
    first = found["placement"][0]
    assert (first["service"], first["device"], first["share"]) == ("generator", "0", 0.9)


def test_weight_files_count_where_they_are_there(raglan: Run, llama: Path) -> None:
    (llama / "model.safetensors").write_bytes(b"")
    with (llama / "model.safetensors").open("r+b") as file:
        file.truncate(5_730_000_000)
    done = raglan("plan", "--gpu", "24GB", "--llm", llama, "--streams", 2, "--json")
    assert json.loads(done.out)["generator"]["weight_bytes"] == pytest.approx(5.73e9, rel=1e-3)


def test_compose_override_sets_devices_and_shares(raglan: Run, llama: Path) -> None:
    written = llama.parent / "compose.plan.yaml"
    options = ("--streams", 3, "--model", "/models/llama", "--compose", written)
    assert raglan("plan", "--gpu", "2x24GB", "--llm", llama, *options).status == 0
    services = yaml.load(written.read_text(), Override)["services"]
    ids = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
    }
    assert ids == {"generator": ["0"], "embedder": ["1"], "reranker": ["1"]}
    assert services["generator"]["environment"] == {
        "RAGLAN_GENERATOR_ENGINE": "vllm",
        "RAGLAN_GENERATOR_MODEL": "/models/llama",
        "RAGLAN_GENERATOR_MAX_MODEL_LEN": "8192",
        "RAGLAN_GENERATOR_MAX_NUM_SEQS": "3",
        "RAGLAN_GENERATOR_MAX_NUM_BATCHED_TOKENS": "2048",
        "RAGLAN_GENERATOR_GPU_MEMORY_UTILIZATION": "0.9",
        "RAGLAN_GENERATOR_TENSOR_PARALLEL_SIZE": "1",
    }
    # The list of the file before is replaced, not added to.
    assert written.read_text().count("devices: !override") == 3


@pytest.mark.parametrize("gpus", [("24GB",), ("2x24GB",), ("80GB/3g.40gb,1g.10gb,1g.10gb",)])
def test_every_variable_is_a_setting_with_a_valid_value(
    raglan: Run, llama: Path, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = llama.parent / "compose.plan.yaml"
    options = [word for gpu in gpus for word in ("--gpu", gpu)]
    options += [
        "--streams",
        "2",
        "--model",
        "m",
        "--quantization",
        "fp8",
        "--compose",
        str(written),
    ]
    assert raglan("plan", "--llm", llama, *options).status == 0
    services = yaml.load(written.read_text(), Override)["services"]
    for name, service in services.items():
        for variable, value in service["environment"].items():
            monkeypatch.setenv(variable, value)
        loaded = SETTINGS[name]()
        fields = {
            variable.removeprefix(f"RAGLAN_{name.upper()}_").lower(): value
            for variable, value in service["environment"].items()
        }
        assert {field: str(getattr(loaded, field)) for field in fields} == fields


def values(raglan: Run, llama: Path, *options: object) -> dict[str, Any]:
    written = llama.parent / "values-plan.yaml"
    done = raglan("plan", "--llm", llama, "--streams", 2, *options, "--helm", written)
    assert done.status == 0, done.err
    found: dict[str, Any] = yaml.safe_load(written.read_text())
    return found


def test_helm_values_share_a_gpu_by_one_claim(raglan: Run, llama: Path) -> None:
    found = values(raglan, llama, "--gpu", "24GB", "--model", "m")
    assert found["gpus"] == {"gpu-0": {"kind": "dra"}}
    gpus = {name: service["gpu"] for name, service in found["services"].items()}
    assert {gpu["name"] for gpu in gpus.values()} == {"gpu-0"}
    assert sum(gpu["memoryShare"] for gpu in gpus.values()) <= 1
    assert found["modelCache"] == {"enabled": True}
    assert found["services"]["generator"]["model"] == {"gib": 15.0}
    assert found["services"]["generator"]["settings"] == {
        "model": "m",
        "max_model_len": 8192,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 2048,
    }


def test_helm_values_of_whole_gpus_and_slices(raglan: Run, llama: Path) -> None:
    found = values(raglan, llama, "--gpu", "80GB/3g.40gb,1g.10gb", "--on-cpu", "reranker")
    assert found["gpus"] == {
        "slice-0-0": {"kind": "mig", "resource": "nvidia.com/mig-3g.40gb"},
        "slice-0-1": {"kind": "mig", "resource": "nvidia.com/mig-1g.10gb"},
    }
    assert "reranker" not in found["services"]
    found = values(raglan, llama, "--gpu", "2x24GB", "--sharing", "time-sliced")
    assert found["gpus"] == {"gpu-0": {"kind": "whole"}, "gpu-1": {"kind": "time-sliced"}}


SLICES = ("--gpu", "80GB/3g.40gb,2g.20gb,1g.10gb")


def test_helm_values_claim_all_slices_where_one_is_shared(raglan: Run, llama: Path) -> None:
    """The device plugin may not manage a GPU that the driver of claims manages."""

    def claim(profile: str) -> dict[str, Any]:
        attribute = "device.attributes['gpu.nvidia.com'].profile"
        selectors = [f"{attribute} == '{profile}'"]
        return {"kind": "dra", "deviceClassName": "mig.nvidia.com", "selectors": selectors}

    assert values(raglan, llama, *SLICES)["gpus"] == {
        "slice-0-0": {**claim("3g.40gb"), "perPod": True},
        "slice-0-2": claim("1g.10gb"),
    }
    found = values(raglan, llama, "--gpu", "2x24GB")
    assert found["gpus"] == {"gpu-0": {"kind": "dra", "perPod": True}, "gpu-1": {"kind": "dra"}}


def test_helm_values_name_the_time_slices_of_a_slice(raglan: Run, llama: Path) -> None:
    assert values(raglan, llama, *SLICES, "--sharing", "time-sliced")["gpus"] == {
        "slice-0-0": {"kind": "mig", "resource": "nvidia.com/mig-3g.40gb"},
        "slice-0-2": {"kind": "time-sliced", "resource": "nvidia.com/mig-1g.10gb.shared"},
    }


def test_what_does_not_fit_is_said_with_what_would(raglan: Run, llama: Path) -> None:
    done = raglan("plan", "--gpu", "24GB", "--llm", llama)
    assert done.status == 1
    assert len(done.err.strip().splitlines()) == 1
    assert "It does not fit on 24.0 GB" in done.err
    assert "What would fit: --streams 2; or 4 GPUs of 24.0 GB; or one GPU of 80 GB." in done.err


def test_a_plan_without_gpus_is_a_wrong_command(raglan: Run) -> None:
    assert raglan("plan").status == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "24"], "'24' is no size of memory; write 24GB, 22.5GiB or 24564MiB"),
        (["--gpu", "24GB", "--llm", "/no/such"], "/no/such does not exist; give a model's folder"),
        (["--gpu", "24GB", "--context", "200000"], "the model reads 131,072 tokens"),
        (["--gpu", "24GB", "--quantization", "awq"], "'awq' cannot be done while loading"),
        (["--gpu", "24GB", "--embedder", "/no/such"], "--embedder /no/such: /no/such does not"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(
    raglan: Run, llama: Path, options: list[str], said: str
) -> None:
    done = raglan("plan", *(() if "--llm" in options else ("--llm", llama)), *options)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "it has no num_hidden_layers; is it the config.json of a language model?"),
        ("[]", "is no JSON object"),
        ("{", "is no JSON"),
        ('{"num_hidden_layers": 2}', "it has no hidden_size"),
    ],
)
def test_a_file_that_is_no_configuration(raglan: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    done = raglan("plan", "--gpu", "24GB", "--llm", tmp_path / "config.json")
    assert (done.status, said in done.err) == (2, True), done.err


def test_a_folder_without_a_configuration(raglan: Run, tmp_path: Path) -> None:
    done = raglan("plan", "--gpu", "24GB", "--llm", tmp_path)
    assert (done.status, "holds no config.json" in done.err) == (2, True)


def test_a_model_that_fits_nowhere_says_so(raglan: Run, tmp_path: Path) -> None:
    huge = LLAMA_70B | {"num_hidden_layers": 4000}
    (tmp_path / "config.json").write_text(json.dumps(huge))
    done = raglan("plan", "--gpu", "24GB", "--llm", tmp_path)
    assert done.status == 1
    assert "choose a smaller model" in done.err


def test_a_file_that_cannot_be_written(raglan: Run, llama: Path) -> None:
    done = raglan("plan", "--gpu", "24GB", "--llm", llama, "--streams", 1, "--helm", llama)
    assert done.status == 1
    assert "cannot be written" in done.err
