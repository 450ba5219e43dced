"""The ONNX file of a cross-encoder: the one it ships, or an export made once.

Its graph maps `input_ids`, `attention_mask` and, of models with segments, `token_type_ids` to
`logits`. The export needs torch and runs in a process of its own, as `raglan.encoders.export`.
"""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any, Final

from raglan.encoders.conversion import made_once, report
from raglan.encoders.export import main, write_onnx
from raglan.encoders.model import EncoderModel, shipped_onnx

_FORMAT: Final = 1
"""Counts up when the exported graph changes, so that old caches are not used."""


def cross_onnx_file(
    model: EncoderModel, cache_dir: Path, *, stopped: threading.Event | None = None
) -> Path:
    """A file that maps pairs, each of its inputs (batch, tokens), to logits (batch, 1).

    Raises:
        Unavailable: the export failed or the cache cannot be written; the message says why.
    """
    if shipped := shipped_onnx(model.path):
        return shipped
    target = cache_dir / "onnx" / f"{model.files}-cross-v{_FORMAT}.onnx"
    return made_once(model, target, __name__, stopped=stopped)


def has_segments(model: Any) -> bool:
    """True if a transformers model uses token types to separate query and passage."""
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    return takes_types and getattr(model.config, "type_vocab_size", 1) > 1


def export(folder: Path, target: Path) -> None:
    """Write the cross-encoder in `folder` as an ONNX file with free batch and token axes."""
    report("loading PyTorch")
    import torch
    from transformers import AutoModelForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Eager attention: the graph holds plain operations that every runtime fuses itself.
            self.model = AutoModelForSequenceClassification.from_pretrained(
                folder, attn_implementation="eager", local_files_only=True
            )

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            states = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
            logits: torch.Tensor = states.logits
            return logits

    module = Logits()
    ids = torch.randint(5, 100, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if has_segments(module.model):
        inputs["token_type_ids"] = torch.zeros_like(ids)
    write_onnx(module, inputs, "logits", target)


if __name__ == "__main__":
    main(export)
