"""Smaller files, made once from the ONNX file: f16 weights, or int8.

int8 means weights of 8 bits with a scale a row, and activations that the runtime quantises as they
come, each token by itself: a vector then never depends on what else is in its batch, as it does
where one scale is taken from the whole batch, and no calibration texts are needed. The making runs
in a process of its own (`python -m raglan.encoders.quantisation`); reading the files needs the
runtime alone.

int8 vectors may be searched with those of other formats: on SciFact recall@10 is .783 with fp32,
.782 with int8, .787 with queries in int8 over passages in fp32 and .783 the other way round. So the
model's revision stands for all of them.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from raglan.encoders.conversion import is_whole, made_once, report
from raglan.encoders.export import onnx_file
from raglan.encoders.model import EncoderModel, shipped_openvino

Matrix = NDArray[np.float32]
Weights = Literal["f16", "int8"]

Form = Literal["openvino-f16", "openvino-int8", "onnx-int8"]
"""Output formats of the conversion process."""

MEASURED: Final = frozenset({"6d6015ce1c1e"})
"""Files whose int8 vectors were measured: recall@10 on SciFact within 0.5 points of fp32.
all-MiniLM-L6-v2. `raglan parity embedder` measures the loss of other models."""

_FORMAT: Final = 2
"""Counts up when what is made changes, so that old caches are not used."""

_FILE: Final = "openvino_model.xml"

_LEAST_WEIGHTS: Final = 4_096
"""Smaller matrices are left as they are: nothing is to be gained."""


def openvino_file(
    model: EncoderModel,
    weights: Weights,
    cache_dir: Path,
    *,
    stopped: threading.Event | None = None,
) -> Path:
    """The `.xml` of an OpenVINO model with such weights; the `.bin` lies beside it.

    Blocks for seconds on the first call for a model; later ones return at once.

    Raises:
        Unavailable: it could not be made, or was stopped; the message says why.
    """
    if shipped := shipped_openvino(model.path, quantised=weights == "int8"):
        return shipped
    folder = cache_dir / "openvino" / f"{model.files}-{weights}-v{_FORMAT}"
    form: Form = "openvino-int8" if weights == "int8" else "openvino-f16"
    return _made(model, folder, form, cache_dir, stopped) / _FILE


def onnx_int8_file(
    model: EncoderModel, cache_dir: Path, *, stopped: threading.Event | None = None
) -> Path:
    """An ONNX file with weights in int8, for ONNX Runtime; else as `openvino_file`."""
    target = cache_dir / "onnx" / f"{model.files}-int8-v{_FORMAT}.onnx"
    return _made(model, target, "onnx-int8", cache_dir, stopped)


def _made(
    model: EncoderModel,
    target: Path,
    form: Form,
    cache_dir: Path,
    stopped: threading.Event | None,
) -> Path:
    if is_whole(target):
        return target
    source = onnx_file(model, cache_dir, stopped=stopped)
    return made_once(
        model, target, "raglan.encoders.quantisation", str(source), form, stopped=stopped
    )


def int8_rows(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], Matrix]:
    """(quantised, scale): `weights` is about their product, exact to half a step of 127.

    Args:
        weights: a matrix.
        axis: the one that a scale is shared along.
    """
    scale = np.maximum(np.abs(weights).max(axis=axis, keepdims=True) / 127, 1e-12)
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)


def convert(source: Path, target: Path, form: Form) -> None:
    """Write the model in ONNX file `source` to `target`, a new folder for OpenVINO or a file."""
    if form == "onnx-int8":
        _convert_onnx(source, target)
        return
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    report("reading the ONNX file")
    import openvino

    graph = openvino.Core().read_model(source)
    if form == "openvino-int8":
        report("quantising the weights")
        _compress(graph)
    report("writing the OpenVINO file")
    target.mkdir(parents=True)
    openvino.save_model(graph, target / _FILE, compress_to_fp16=True)


def _convert_onnx(source: Path, target: Path) -> None:
    report("quantising the weights")
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # Accuracy level 4: the products are computed in int8, too, with a scale a block of each row.
    made = MatMulNBitsQuantizer(
        onnx.load(source), bits=8, block_size=32, is_symmetric=True, accuracy_level=4
    )
    made.process()
    made.model.save_model_to_file(str(target))


def _compress(graph: Any) -> None:
    """Put int8 weights with their scales where OpenVINO's `graph` multiplies or looks up."""
    import openvino
    from openvino import opset13

    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        place = 1 if kind == "MatMul" else 0
        constant = node.input_value(place).get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2:
            continue
        weights = np.asarray(constant.data)
        if weights.dtype != np.float32 or weights.size < _LEAST_WEIGHTS:
            continue
        # A scale for each output of a product, and for each row of a table.
        by_column = kind == "MatMul" and not node.get_attributes()["transpose_b"]
        small, scale = int8_rows(weights, axis=0 if by_column else 1)
        half = opset13.convert(opset13.constant(small), openvino.Type.f16)
        scaled = opset13.multiply(half, opset13.constant(scale.astype(np.float16)))
        node.input(place).replace_source_output(
            opset13.convert(scaled, openvino.Type.f32).output(0)
        )


def main() -> None:
    """Command line: `python -m raglan.encoders.quantisation FOLDER TARGET ONNX FORM`."""
    parser = argparse.ArgumentParser(prog="raglan.encoders.quantisation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("form", choices=get_args(Form))
    given = parser.parse_args()
    convert(given.source, given.target, given.form)


if __name__ == "__main__":
    main()
