"""A device is what was asked for, or a refusal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import torch
from raglan import encoders
from raglan.encoders import device, model
from raglan.errors import InvalidInput, Unavailable
from raglan_embedder import engines


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch finds none, whether this machine has one or not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_a_cpu_engine_runs_on_the_cpu(asked: str) -> None:
    assert device.require_cpu(asked, "onnx") == "cpu"


def test_a_cpu_engine_refuses_a_gpu_and_names_the_way_out() -> None:
    with pytest.raises(InvalidInput, match="onnx engine .* device is 'cuda:1'.*torch"):
        device.require_cpu("cuda:1", "onnx")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", ["cuda:99", "cuda"])
def test_a_gpu_that_is_missing_is_refused_with_a_reason(asked: str) -> None:
    with pytest.raises(Unavailable, match=f"device is '{asked}', but torch .* sees"):
        device.torch_device(asked)


@pytest.mark.usefixtures("no_gpu")
def test_auto_falls_back_to_the_cpu_and_says_so() -> None:
    with structlog.testing.capture_logs() as logs:
        assert device.torch_device("auto") == "cpu"
    assert [entry["log_level"] for entry in logs] == ["warning"]


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:-1", ""])
def test_what_is_no_device_is_refused(asked: str) -> None:
    with pytest.raises(InvalidInput, match="must be auto, cpu, cuda"):
        device.torch_device(asked)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_cores_follow_the_quota_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], most: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert device.usable_cores(tmp_path) == most


def test_a_torch_engine_without_its_libraries_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in the image for CPUs."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for package, name in ((encoders, "torch_model"), (engines, "torch")):
        # What another test has imported: in the list of modules, and as an attribute.
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
        monkeypatch.delattr(package, name, raising=False)
    with pytest.raises(Unavailable, match="sentence_transformers, which is not installed") as said:
        engines.load(
            "torch",
            model.read(model.DEFAULT_MODEL),
            device="cpu",
            precision="auto",
            streams=1,
            cache_dir=Path(),
        )
    assert "-gpu" in said.value.message


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs as torch describes them."""
    uuids = ["5f7e1c2a-0000-4000-8000-000000000001", "5f7e1c2b-0000-4000-8000-000000000002"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index])
    )


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("GPU-5f7e1c2b-0000-4000-8000-000000000002", "cuda:1"),
        ("GPU-5f7e1c2a", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("auto", "cuda:0"),
    ],
)
def test_a_gpu_is_found_by_index_or_uuid(setting: str, found: str) -> None:
    assert device.torch_device(setting) == found


@pytest.mark.parametrize(
    ("cuda", "cure"), [(None, "install torch for CUDA"), ("13.0", "give the process that GPU")]
)
def test_a_build_of_torch_for_cpus_is_told_from_a_missing_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, cure: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unavailable, match=f'"auto" or "cpu", or {cure}'):
        device.torch_device("cuda:0")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("setting", ["GPU-aaaa", "GPU-5f7e1c2", "cuda:2"])
def test_a_gpu_that_is_missing_or_ambiguous_is_refused(setting: str) -> None:
    with pytest.raises(Unavailable, match="sees 2 CUDA devices"):
        device.torch_device(setting)
