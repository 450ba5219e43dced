"""The ONNX file of a model: the one it ships, or an export made once and kept by content hash.

The export needs torch, so it runs in a process of its own (`python -m raglan.encoders.export`), and
the services that serve the file never load it.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raglan.encoders.conversion import made_once, report
from raglan.encoders.model import EncoderModel, shipped_onnx

if TYPE_CHECKING:
    import torch

_FORMAT: Final = 1
"""Counts up when the exported graph changes, so that old caches are not used."""


def onnx_file(
    model: EncoderModel, cache_dir: Path, *, stopped: threading.Event | None = None
) -> Path:
    """A file that maps `input_ids`, `attention_mask` (batch, tokens) to token vectors.

    Blocks for seconds on the first call for a model; later ones return at once.

    Raises:
        Unavailable: the export failed, was stopped, or the cache cannot be written; the message
            says why.
    """
    if shipped := shipped_onnx(model.path):
        return shipped
    target = cache_dir / "onnx" / f"{model.files}-v{_FORMAT}.onnx"
    return made_once(model, target, __name__, stopped=stopped)


def export(folder: Path, target: Path) -> None:
    """Write the encoder in `folder` as an ONNX file with free batch and token axes."""
    report("loading PyTorch")
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

    ids = torch.randint(5, 100, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    write_onnx(TokenVectors(), inputs, "last_hidden_state", target)


def write_onnx(
    module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], output: str, target: Path
) -> None:
    """Write `module` as an ONNX file with free batch and token axes.

    Args:
        module: the torch module.
        inputs: an example of each by its name, (batch, tokens), in the order of `forward`.
        output: the name of what `forward` returns.
        target: the ONNX file.
    """
    import torch

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    report("exporting to ONNX")
    torch.onnx.export(
        module.eval(),  # else the dropout layers would stay in the graph
        tuple(inputs.values()),
        target,
        dynamo=True,
        dynamic_shapes=(axes,) * len(inputs),
        external_data=False,
        input_names=list(inputs),
        output_names=[output],
        verbose=False,
    )


def main(export: Callable[[Path, Path], None]) -> None:
    """Command line of a module that exports: `python -m <module> FOLDER FILE`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    export(given.folder, given.file)


if __name__ == "__main__":
    main(export)
