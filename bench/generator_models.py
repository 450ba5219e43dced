"""Models for the benchmarks of the generator, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_model
import torch
from generator_shapes import Shape
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

_POSITIONS = 8_192


def write_endless(folder: Path) -> None:
    """The tiny model, which never ends an answer: special tokens get no more than logit 0.

    A greedy choice among the other 2,000, random ones, is always of more than that. So both
    servers write as many tokens as they are asked for.
    """
    tiny_model.make(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    with torch.no_grad():
        weights["lm_head.weight"][AutoTokenizer.from_pretrained(folder).all_special_ids] = 0
    save_file(weights, file, metadata={"format": "pt"})


def write_shape(folder: Path, shape: Shape) -> None:
    """A configuration and a tokenizer; the weights are made when it is loaded."""
    tiny_model.make(folder)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": _POSITIONS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    # Every token of the model has a text, though no text is split into the added ones.
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    known = tokenizer["model"]["vocab"]
    known |= {f"\u0120w{number}": number for number in range(len(known), shape.vocabulary)}
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
