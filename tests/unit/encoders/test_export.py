"""Which file of a model is used, before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raglan.encoders import conversion, export, quantisation
from raglan.encoders.model import EncoderModel


@pytest.fixture
def model(tmp_path: Path) -> EncoderModel:
    folder = tmp_path / "model"
    folder.mkdir()
    return EncoderModel("m", folder, "0123456789ab", 12, 64, "mean", plain=True)


def ship(model: EncoderModel, name: str) -> Path:
    shipped = model.path / name
    shipped.parent.mkdir(exist_ok=True)
    shipped.write_bytes(b"shipped")
    return shipped


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx"])
def test_a_shipped_onnx_file_is_used_as_it_is(
    model: EncoderModel, tmp_path: Path, name: str
) -> None:
    shipped = ship(model, name)
    assert export.onnx_file(model, tmp_path / "cache") == shipped
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["openvino_model.xml", "openvino/openvino_model.xml"])
def test_a_shipped_openvino_file_is_used_as_it_is(
    model: EncoderModel, tmp_path: Path, name: str
) -> None:
    shipped = ship(model, name)
    assert quantisation.openvino_file(model, "f16", tmp_path / "cache") == shipped


def test_a_shipped_quantised_file_is_used_for_int8_alone(
    model: EncoderModel, tmp_path: Path
) -> None:
    plain = ship(model, "openvino/openvino_model.xml")
    quantised = ship(model, "openvino/openvino_model_qint8_quantized.xml")
    assert quantisation.openvino_file(model, "f16", tmp_path / "cache") == plain
    assert quantisation.openvino_file(model, "int8", tmp_path / "cache") == quantised


def test_a_cached_file_is_found_by_revision_weights_and_format(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_once(model: EncoderModel, target: Path, module: str, *rest: str, **_: object) -> Path:
        target.mkdir(parents=True)
        return target

    ship(model, "model.onnx")
    monkeypatch.setattr(quantisation, "made_once", made_once)
    found = quantisation.openvino_file(model, "int8", tmp_path)
    assert found.parent.name == f"0123456789ab-int8-v{quantisation._FORMAT}"
    assert quantisation.openvino_file(model, "f16", tmp_path).parent != found.parent


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_weights_are_exact_to_half_a_step(axis: int) -> None:
    weights = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    weights[3, :], weights[:, 5] = 0, 0
    small, scale = quantisation.int8_rows(weights, axis)
    assert small.dtype == np.int8
    assert scale.size == weights.shape[1 - axis]
    assert np.abs(small * scale - weights).max() <= scale.max() * 0.501


def test_the_explanation_of_a_failed_conversion_is_its_last_line(model: EncoderModel) -> None:
    assert conversion._explain(model, 1, "Traceback\n  frames\nValueError: no\n").endswith("no")
