"""A device is what was asked for, or a refusal."""

from __future__ import annotations

import pytest
import structlog
from raglan.encoders import device
from raglan.errors import InvalidInput, Unavailable

torch = pytest.importorskip("torch")
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_a_cpu_engine_runs_on_the_cpu(asked: str) -> None:
    assert device.require_cpu(asked, "onnx") == "cpu"


def test_a_cpu_engine_refuses_a_gpu_and_names_the_way_out() -> None:
    with pytest.raises(InvalidInput, match="onnx engine .* device is 'cuda:1'.*torch"):
        device.require_cpu("cuda:1", "onnx")


@pytest.mark.parametrize("asked", ["cuda:99", pytest.param("cuda", marks=WITHOUT_GPU)])
def test_a_gpu_that_is_missing_is_refused_with_a_reason(asked: str) -> None:
    with pytest.raises(Unavailable, match=f"device is '{asked}', but torch .* sees"):
        device.torch_device(asked)


@WITHOUT_GPU
def test_auto_falls_back_to_the_cpu_and_says_so() -> None:
    with structlog.testing.capture_logs() as logs:
        assert device.torch_device("auto") == "cpu"
    assert [entry["log_level"] for entry in logs] == ["warning"]


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:-1", ""])
def test_what_is_no_device_is_refused(asked: str) -> None:
    with pytest.raises(InvalidInput, match="must be auto, cpu, cuda"):
        device.torch_device(asked)
