"""Token vectors from token ids, by OpenVINO, ONNX Runtime or torch.

On a CPU each stream is single-threaded: one stream a core serves 1.8-3x what one session over all
cores does, and does not collapse when something else runs. Bulk work has streams of its own, whose
threads are niced: the kernel then puts a query before it at once. Beside saturating bulk a query
took 4.6 ms, as when idle (28 ms on shared streams), and bulk kept 83 % of its speed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from raglan.encoders import device as devices
from raglan.encoders import quantisation
from raglan.encoders.device import Attention, Precision, SessionEngine
from raglan.encoders.device_use import DeviceUse
from raglan.encoders.export import onnx_file
from raglan.encoders.model import EncoderModel, shipped_openvino
from raglan.errors import InvalidInput, Unavailable
from raglan.scheduling import niceness

TokenIds = list[int]
Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""(ids, mask), both (batch, tokens) -> float32 (batch, tokens, dim), valid until the next call.

One caller at a time: each device thread has its own.
"""

STEP: Final = 16
"""Widths of batches are multiples of this. At other widths OpenVINO's vectors of 16 floats end in a
rest that it sums in another way, and a text of 40 tokens gets other bytes alone than beside a
longer one. It also bounds the shapes, for each of which OpenVINO keeps kernels: 400 texts of mixed
length took 114 MB without steps, 68 MB with steps of 8."""

_OUTPUTS: Final = ("last_hidden_state", "token_embeddings", "logits")


@dataclass(frozen=True, slots=True)
class Sessions:
    """A loaded encoder: as many streams as may run at once, and what they run on."""

    streams: tuple[Run, ...]
    device: str
    dtype: str

    bulk_streams: tuple[Run, ...] = ()
    """Streams for bulk work, which yield to `streams`; empty where the device has but one lane."""

    uses: tuple[DeviceUse, ...] = ()
    """GPUs that it runs on."""


def load(
    engine: SessionEngine,
    model: EncoderModel,
    *,
    device: str,
    precision: Precision,
    streams: int,
    cache_dir: Path,
    attention: Attention = "sdpa",
    compiled: bool = False,
    bulk: bool = True,
    stopped: threading.Event | None = None,
) -> Sessions:
    """Load `model`. Blocks for seconds: call it in a thread.

    Args:
        engine: inference engine.
        model: the resolved model.
        device: auto, cpu, cuda or cuda:<number>.
        precision: number format of the weights.
        streams: batches that run at once on a CPU; 0 means one a core.
        cache_dir: folder of exported models.
        attention: of the torch engine.
        compiled: whether the torch engine compiles the model.
        bulk: whether there is bulk work, which then gets streams of its own where that helps.
        stopped: when it is set, a running conversion is abandoned.

    Raises:
        InvalidInput: the engine has no such device or precision.
        Unavailable: no such GPU, or no file of the model can be had.
    """
    # numpy's matrix products too: beside busy streams, two threads of OpenBLAS wait for each other
    # so long that a MaxSim of 0.9 ms took 190 ms, and 130 ms of CPU time.
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    if engine == "torch":
        try:
            from raglan.encoders.torch_model import TorchModel
        except ModuleNotFoundError as error:
            raise devices.missing_library(error) from None
        loaded = TorchModel(
            model, device=device, precision=precision, attention=attention, compiled=compiled
        )
        return Sessions((loaded.token_vectors,), loaded.device, loaded.dtype, uses=loaded.uses)
    devices.require_cpu(device, engine)
    if engine == "openvino":
        if precision == "auto" and model.files in quantisation.MEASURED:
            precision = "int8"
        dtype = _openvino_dtype(precision)
        file = _openvino_source(model, dtype, cache_dir, stopped)
        count = streams or devices.usable_cores()
        return _openvino(file, dtype, count, bulk=bulk, row=model.dimension)
    if precision == "int8":
        file = quantisation.onnx_int8_file(model, cache_dir, stopped=stopped)
        return _onnx(file, "int8", streams or devices.usable_cores(), bulk=bulk)
    file = onnx_file(model, cache_dir, stopped=stopped)
    return open_file(file, engine, precision=precision, streams=streams, bulk=bulk)


def open_file(
    file: Path, engine: SessionEngine, *, precision: Precision, streams: int, bulk: bool
) -> Sessions:
    """Load an ONNX file on the CPU, by OpenVINO or ONNX Runtime.

    Its runs also take token types, (batch, tokens), as a third argument; without, they are all 0.

    Raises:
        InvalidInput: the engine cannot run this file in such a precision.
        Unavailable: it cannot be loaded.
    """
    if precision == "int8":
        raise InvalidInput(
            "precision is 'int8', which models of this kind are not converted to. "
            'Set it to "auto" to take the best.'
        )
    count = streams or devices.usable_cores()
    if engine == "openvino":
        return _openvino(file, _openvino_dtype(precision), count, bulk=bulk)
    if precision not in ("auto", "f32"):
        raise InvalidInput(
            f"precision is {precision!r}; the onnx engine offers f32 and int8. "
            'Set it to "auto", or choose the engine "openvino" for bf16.'
        )
    return _onnx(file, "f32", count, bulk=bulk)


def padded(tokens: int) -> int:
    """Round `tokens`, the longest text of a batch, up to the next multiple of `STEP`."""
    return -(-tokens // STEP) * STEP


def pad(batch: Sequence[TokenIds]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ids, mask) of shape (len(batch), `padded` longest), zeros at the end."""
    width = padded(max(map(len, batch)))
    ids = np.zeros((len(batch), width), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def _openvino_source(
    model: EncoderModel, dtype: str, cache_dir: Path, stopped: threading.Event | None
) -> Path:
    if dtype == "f32":
        shipped = shipped_openvino(model.path)
        return shipped or onnx_file(model, cache_dir, stopped=stopped)
    # Weights of 16 bits hold more than bf16 computes with, and take half the memory.
    weights: quantisation.Weights = "int8" if dtype == "int8" else "f16"
    return quantisation.openvino_file(model, weights, cache_dir, stopped=stopped)


def _import_openvino() -> Any:
    # Importing openvino forks a process that reports to Google Analytics, unless its telemetry
    # package cannot be imported: what serves other people's documents does not call home.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _openvino_dtype(precision: Precision) -> str:
    """Return the OpenVINO dtype of `precision` on this CPU.

    Raises:
        InvalidInput: OpenVINO has no kernels for it here.
    """
    capabilities = _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    offered = [dtype for dtype in ("f32", "bf16") if dtype != "bf16" or "BF16" in capabilities]
    if precision == "auto":
        return offered[-1]
    if precision not in (*offered, "int8"):
        raise InvalidInput(
            f"precision is {precision!r}; OpenVINO on this CPU offers "
            f'{", ".join(offered)} and int8. Set it to "auto" to take the best.'
        )
    return precision


def _openvino(file: Path, dtype: str, count: int, *, bulk: bool, row: int = 0) -> Sessions:
    core = _import_openvino().Core()
    # Of an int8 model, what stays in floating point runs in the fastest format.
    hint = _openvino_dtype("auto") if dtype == "int8" else dtype
    properties = {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": str(count),
        "INFERENCE_NUM_THREADS": count,
        # Pinned, the threads of both lanes would be tied to one core each, and not always another.
        "ENABLE_CPU_PINNING": False,
    }
    if dtype == "int8":
        # A token's activations share one scale for each so many of them: 1.1x as fast as with 32.
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(row)
    try:
        # Compiled twice from one read model: the two share the weights.
        graph = core.read_model(str(file))
        compiled = [
            niceness.niced(nice, lambda: core.compile_model(graph, "CPU", properties))
            for nice in ((niceness.QUERIES, niceness.BULK) if bulk else (niceness.QUERIES,))
        ]
    except RuntimeError as error:
        raise Unavailable(f"OpenVINO cannot load {file}: {error}") from error
    streams, *others = [tuple(_openvino_stream(each) for _ in range(count)) for each in compiled]
    bulk_streams = others[0] if bulk else ()
    # OpenVINO 2026.4: two threads that both make the first call of a process wait for each other
    # for ever (a C++ static is initialised under the GIL in `Type.to_dtype`). So, one by one.
    for run in streams + bulk_streams:
        run(*pad([[1, 2]]))
    return Sessions(streams, "cpu", dtype, bulk_streams)


def _openvino_stream(compiled: Any) -> Run:
    inputs = [port.get_any_name() for port in compiled.inputs]
    output = _output_index([sorted(port.get_names()) for port in compiled.outputs])
    request = compiled.create_infer_request()

    def run(
        ids: NDArray[np.int64], mask: NDArray[np.int64], types: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        request.infer(_feed(inputs, ids, mask, types), share_inputs=True)
        vectors: NDArray[np.float32] = request.get_output_tensor(output).data
        return vectors

    return run


def _onnx(file: Path, dtype: str, count: int, *, bulk: bool) -> Sessions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise Unavailable(f"ONNX Runtime cannot load {file}: {error}") from error
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]
    wanted = [outputs[_output_index([[name] for name in outputs])]]

    def run(
        ids: NDArray[np.int64], mask: NDArray[np.int64], types: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = session.run(wanted, _feed(inputs, ids, mask, types))[0]
        return vectors

    # One session serves any number of threads; each call runs on its caller's.
    streams = (run,) * count
    return Sessions(streams, "cpu", dtype, streams if bulk else ())


def _feed(
    inputs: Sequence[str],
    ids: NDArray[np.int64],
    mask: NDArray[np.int64],
    types: NDArray[np.int64] | None,
) -> dict[str, Any]:
    # Files from elsewhere may ask for token_type_ids of single texts: these are all segment 0.
    segments = np.zeros_like(ids) if types is None else types
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: known[name] for name in inputs}


def _output_index(outputs: Sequence[Sequence[str]]) -> int:
    for wanted in _OUTPUTS:
        for index, names in enumerate(outputs):
            if wanted in names:
                return index
    return 0
