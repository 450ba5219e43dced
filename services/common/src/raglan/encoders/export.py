"""The ONNX file of a model: the one it ships, or an export made once and kept by content hash.

The export needs torch, so it runs in a process of its own (`python -m raglan.encoders.export`), and
the services that serve the file never load it. Embedder and reranker start together and share the
file: a lock lets one of them make it, and it appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from raglan.encoders.model import EncoderModel, shipped_onnx
from raglan.errors import Unavailable

log: Final = structlog.get_logger()

TIMEOUT_S: Final = 900.0
"""Longest an export may take, and longest another process waits for it."""

_FORMAT: Final = 1
"""Counts up when the exported graph changes, so that old caches are not used."""


def onnx_file(model: EncoderModel, cache_dir: Path) -> Path:
    """A file that maps `input_ids`, `attention_mask` (batch, tokens) to token vectors.

    Blocks for seconds on the first call for a model; later ones return at once.

    Raises:
        Unavailable: the export failed or the cache cannot be written; the message says why.
    """
    if shipped := shipped_onnx(model.path):
        return shipped
    target = cache_dir / "onnx" / f"{model.revision}-v{_FORMAT}.onnx"
    return made_once(model, target, "raglan.encoders.export")


def made_once(model: EncoderModel, target: Path, module: str) -> Path:
    """`target`, written by `python -m <module> <model folder> <file>` unless it is there.

    Raises:
        Unavailable: the process failed or the cache cannot be written; the message says why.
    """
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=TIMEOUT_S):
            if not target.is_file():
                _make(model, target, module)
    except Timeout:
        raise Unavailable(
            f"Another process has held {target}.lock for {TIMEOUT_S:.0f} s; is its export stuck?"
        ) from None
    except OSError as error:
        raise Unavailable(f"The model cache {target.parent} cannot be used: {error}") from error
    return target


def _make(model: EncoderModel, target: Path, module: str) -> None:
    log.info("converting the model, once", model=model.id, file=str(target))
    partial = target.with_suffix(".partial")
    command = [sys.executable, "-m", module, str(model.path), str(partial)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, paths of ours
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise Unavailable(_explain(model, done.returncode, done.stderr))
        partial.replace(target)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"The export of {model.id!r} took over {TIMEOUT_S:.0f} s.") from None
    finally:
        partial.unlink(missing_ok=True)


def _explain(model: EncoderModel, status: int, stderr: str) -> str:
    silent = f"it ended with status {status} and no word"
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), silent)
    if "ModuleNotFoundError" in last:
        return (
            f"Model {model.id!r} ships no ONNX file, and making one needs PyTorch ({last}): "
            'install "raglan[torch]", or give a model folder that holds onnx/model.onnx.'
        )
    return f"The export of {model.id!r} to ONNX failed: {last}"


def export(folder: Path, target: Path) -> None:
    """Write the encoder in `folder` as an ONNX file with free batch and token axes."""
    import torch
    from transformers import AutoModel

    class TokenVectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Eager attention: the graph holds plain operations that every runtime fuses itself.
            self.encoder = AutoModel.from_pretrained(
                folder, attn_implementation="eager", local_files_only=True
            )

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
            vectors: torch.Tensor = states.last_hidden_state
            return vectors

    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    axes = {0: batch, 1: tokens}
    ids = torch.randint(5, 100, (2, 16))
    torch.onnx.export(
        # Without eval() the dropout layers would stay in the graph.
        TokenVectors().eval(),
        (ids, torch.ones_like(ids)),
        target,
        dynamo=True,
        dynamic_shapes=(axes, axes),
        external_data=False,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        verbose=False,
    )
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def main() -> None:
    """Command line: `python -m raglan.encoders.export FOLDER FILE`."""
    parser = argparse.ArgumentParser(prog="raglan.encoders.export")
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    export(arguments.folder, arguments.file)


if __name__ == "__main__":
    main()
