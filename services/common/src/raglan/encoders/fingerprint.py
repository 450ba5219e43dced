"""Digest of all that shapes a model's vectors: vectors of different digests are not comparable.

Over everything that shapes a vector: the weights, the configuration, the tokenizer, the modules
behind the transformer and their own weights. Not over what has no part in it, so that a README or
another version of the library that saved the model changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from raglan.encoders.layout import Layout, read_json
from raglan.errors import Unavailable

_IGNORED: Final = frozenset({"_name_or_path", "transformers_version", "__version__"})
"""Keys of configurations that say where a model came from, not what it does."""

_HEADS: Final = ("sparse_linear.pt", "colbert_linear.pt")


def of_files(layout: Layout) -> str:
    """The first 12 hex digits of the SHA-256 over the files that shape a vector.

    Raises:
        Unavailable: the folder holds no weights.
    """
    digest = hashlib.sha256()
    transformer = layout.transformer
    files = [transformer / "config.json", transformer / "tokenizer.json", *_weights(transformer)]
    files += sorted(transformer.glob("sentence_*_config.json"))
    files += [file for name in _HEADS if (file := transformer / name).is_file()]
    for module in layout.modules:
        digest.update(f"{module.kind}\0".encode())
        if module.folder not in (transformer, layout.root) and module.folder.is_dir():
            files += sorted(file for file in module.folder.rglob("*") if file.is_file())
    if not layout.modules:
        files += [file for file in [layout.root / "1_Pooling" / "config.json"] if file.is_file()]
    for file in files:
        for block in _content(file):
            digest.update(block)
    return digest.hexdigest()[:12]


def of_use(files: str, *parts: str) -> str:
    """The first 12 hex digits of the SHA-256 over `files` and how the model is used: `parts`."""
    used = json.dumps([files, *parts])
    return hashlib.sha256(used.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def shipped_onnx(path: Path) -> Path | None:
    """The ONNX file that model folder `path` brings along, if any."""
    candidates = (path / "onnx" / "model.onnx", path / "model.onnx")
    return next((file for file in candidates if file.is_file()), None)


def shipped_openvino(path: Path, *, quantised: bool = False) -> Path | None:
    """The OpenVINO file that model folder `path` brings along, if any; its `.bin` lies beside it.

    Args:
        path: a model folder.
        quantised: look for the statically quantised one, as sentence-transformers names it.
    """
    name = "openvino_model_qint8_quantized.xml" if quantised else "openvino_model.xml"
    candidates = (path / "openvino" / name, path / name)
    return next((file for file in candidates if file.is_file()), None)


def _content(file: Path) -> Iterator[bytes]:
    """Return the bytes of `file` to hash: the values of a configuration, else all."""
    if file.name.endswith("config.json"):
        config: Any = read_json(file)
        if isinstance(config, dict):
            config = {key: value for key, value in config.items() if key not in _IGNORED}
        yield json.dumps(config, sort_keys=True).encode()
        return
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _weights(path: Path) -> list[Path]:
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if found := sorted(path.glob(pattern)):
            return found
    if onnx := shipped_onnx(path):
        return sorted(onnx.parent.glob("model.onnx*"))
    if openvino := shipped_openvino(path):
        return [openvino.with_suffix(".bin")]
    raise Unavailable(
        f"{path} holds no weights: no *.safetensors, pytorch_model.bin, model.onnx, "
        "onnx/model.onnx or openvino/openvino_model.xml."
    )
