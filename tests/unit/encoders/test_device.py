"""A device is what was asked for, or a refusal."""

from __future__ import annotations

import pytest
import structlog
import torch
from raglan.encoders import device
from raglan.errors import InvalidInput, Unavailable


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
