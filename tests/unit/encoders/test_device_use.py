"""What is measured of a device, on the one that is here: the CPU stands for both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from raglan.encoders import device_use
from raglan.encoders import model as models
from raglan.encoders.torch_model import TorchModel
from raglan.telemetry import gpu


@pytest.fixture(scope="module")
def loaded() -> TorchModel:
    return TorchModel(models.read(models.DEFAULT_MODEL), device="cpu", precision="f32")


def test_a_model_on_the_cpu_uses_no_gpu(loaded: TorchModel) -> None:
    assert loaded.uses == ()


def test_a_measurement_says_where_the_weights_are_and_times_both_sides(loaded: TorchModel) -> None:
    use = device_use.measure(loaded._model, loaded.sentence_vectors, max_tokens=256)
    assert use.name == "cpu"
    assert use.batch_tokens == 8 * 128
    assert use.batch_s > use.matrix_s > 0
    assert use.cpu_matrix_s > 0
    assert use.to_proto().batch_s == use.batch_s


@pytest.mark.parametrize(
    ("asked", "runtime", "device", "driver", "told"),
    [
        ("auto", "torch", "cpu", "570.1", True),
        ("auto", "torch", "cpu", "", False),
        ("auto", "openvino", "cpu", "570.1", False),
        ("cpu", "torch", "cpu", "570.1", False),
        ("auto", "torch", "cuda:0", "570.1", False),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_told(
    asked: str, runtime: str, device: str, driver: str, told: bool
) -> None:
    problems = device_use.unused_gpu(asked, runtime, device, driver)
    assert bool(problems) is told
    assert all("driver 570.1" in each and "torch" in each for each in problems)


def test_the_version_of_a_driver_is_read_from_either_file(tmp_path: Path) -> None:
    module, proc = tmp_path / "version", tmp_path / "proc"
    assert gpu.driver_version((module, proc)) == ""
    proc.write_text("NVRM version: NVIDIA UNIX Open Kernel Module  570.86.15  Release Build\n")
    assert gpu.driver_version((module, proc)) == "570.86.15"
    module.write_text("550.54\n")
    assert gpu.driver_version((module, proc)) == "550.54"
