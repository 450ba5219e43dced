"""The ONNX file of a model: the one it ships, or an export made once and kept by content hash.

The export needs torch, so it runs in a process of its own (`python -m raglan.encoders.export`), and
the services that serve the file never load it.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import Final

from raglan.encoders.conversion import made_once, report
from raglan.encoders.model import EncoderModel, shipped_onnx

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
    target = cache_dir / "onnx" / f"{model.revision}-v{_FORMAT}.onnx"
    return made_once(model, target, "raglan.encoders.export", stopped=stopped)


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

    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    axes = {0: batch, 1: tokens}
    ids = torch.randint(5, 100, (2, 16))
    report("exporting to ONNX")
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


def main() -> None:
    """Command line: `python -m raglan.encoders.export FOLDER FILE`."""
    parser = argparse.ArgumentParser(prog="raglan.encoders.export")
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    export(arguments.folder, arguments.file)


if __name__ == "__main__":
    main()
