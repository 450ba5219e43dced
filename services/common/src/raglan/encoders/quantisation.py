"""Smaller files, made once from the ONNX file: f16 weights, or int8.

For OpenVINO, int8 is static quantisation by NNCF: the scales of activations are fixed beforehand on
text that comes with this package, so that a vector never depends on what else is in its batch, as
it does where scales are taken from each batch. ONNX Runtime runs static int8 too slowly or, by its
own quantiser, too far from fp32 (cosine 0.945); it gets int8 weights, and quantises each row of the
activations as it comes, block by block. The making runs in a process of its own
(`python -m raglan.encoders.quantisation`); reading the files needs the runtime alone.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, get_args

from raglan.encoders.conversion import made_once, report
from raglan.encoders.export import onnx_file
from raglan.encoders.model import EncoderModel, shipped_openvino
from raglan.encoders.tokenizer import Tokenizers

Weights = Literal["f16", "int8"]

Form = Literal["openvino-f16", "openvino-int8", "onnx-int8"]
"""What the converting process makes."""

MEASURED: Final = frozenset({"53aa51172d14"})
"""Revisions whose int8 vectors were measured: recall@10 on SciFact within 0.5 points of fp32.
all-MiniLM-L6-v2. What another model loses, `raglan parity embedder` tells."""

SAMPLES: Final = 64
"""Calibration texts: 12 s on two cores."""

_WORDS: Final = (5, 150)
"""Shortest and longest calibration text, in words: from a query to a chunk."""

_FORMAT: Final = 1
"""Counts up when what is made changes, so that old caches are not used."""

_FILE: Final = "openvino_model.xml"


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
    folder = cache_dir / "openvino" / f"{model.revision}-{weights}-v{_FORMAT}"
    form: Form = "openvino-int8" if weights == "int8" else "openvino-f16"
    return _made(model, folder, form, cache_dir, stopped) / _FILE


def onnx_int8_file(
    model: EncoderModel, cache_dir: Path, *, stopped: threading.Event | None = None
) -> Path:
    """An ONNX file with weights in int8, for ONNX Runtime; else as `openvino_file`."""
    target = cache_dir / "onnx" / f"{model.revision}-int8-v{_FORMAT}.onnx"
    return _made(model, target, "onnx-int8", cache_dir, stopped)


def _made(
    model: EncoderModel,
    target: Path,
    form: Form,
    cache_dir: Path,
    stopped: threading.Event | None,
) -> Path:
    if target.exists():
        return target
    source = onnx_file(model, cache_dir, stopped=stopped)
    arguments = (str(source), form, str(model.max_tokens))
    return made_once(model, target, "raglan.encoders.quantisation", *arguments, stopped=stopped)


def revision_of_vectors(revision: str, dtype: str) -> str:
    """The revision that vectors carry: int8 ones are not to be mixed with those of other formats.

    f32, bf16 and f16 agree to a cosine of 0.9999, int8 with them to 0.98 at worst.
    """
    return f"{revision}-int8" if dtype == "int8" else revision


def calibration_texts(count: int = SAMPLES) -> Iterator[str]:
    """Passages of 5 to 150 words, the same every time, out of the text in this package."""
    words = resources.files("raglan.encoders").joinpath("calibration.txt").read_text("utf-8")
    every = words.split()
    chosen = random.Random(0)  # noqa: S311 - not a secret
    for _ in range(count):
        length = chosen.randint(*_WORDS)
        start = chosen.randrange(len(every) - length)
        yield " ".join(every[start : start + length])


def convert(source: Path, folder: Path, target: Path, *, form: Form, max_tokens: int) -> None:
    """Write the model in ONNX file `source` to `target`, a new folder for OpenVINO or a file.

    Args:
        folder: the model's, for its tokenizer.
    """
    if form == "onnx-int8":
        _convert_onnx(source, target)
        return
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    report("reading the ONNX file")
    import openvino

    graph = openvino.Core().read_model(source)
    if form == "openvino-int8":
        graph = _quantised(graph, Tokenizers(folder, max_tokens))
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


def _quantised(graph: Any, tokenizers: Tokenizers) -> Any:
    import nncf
    import numpy as np

    nncf.set_log_level(logging.ERROR)
    inputs = [port.get_any_name() for port in graph.inputs]
    seen = 0

    def feed(text: str) -> dict[str, Any]:
        nonlocal seen
        report("calibrating int8", seen % SAMPLES + 1, SAMPLES)
        seen += 1
        ids = np.array(tokenizers.ids([text]), np.int64)
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        # Of models with segments, a single text is all segment 0.
        return {name: known.get(name, np.zeros_like(ids)) for name in inputs}

    return nncf.quantize(
        graph,
        nncf.Dataset(list(calibration_texts()), feed),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=SAMPLES,
    )


def main() -> None:
    """Command line: `python -m raglan.encoders.quantisation FOLDER TARGET ONNX FORM TOKENS`."""
    parser = argparse.ArgumentParser(prog="raglan.encoders.quantisation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("form", choices=get_args(Form))
    parser.add_argument("max_tokens", type=int)
    given = parser.parse_args()
    convert(given.source, given.folder, given.target, form=given.form, max_tokens=given.max_tokens)


if __name__ == "__main__":
    main()
