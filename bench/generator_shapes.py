"""Sizes of models, by which their cost is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    layers: int
    hidden: int
    inner: int
    """Width of the layer between."""
    heads: int
    kv_heads: int
    vocabulary: int


LLAMA_8B: Final = Shape(32, 4_096, 14_336, heads=32, kv_heads=8, vocabulary=128_256)
TINY: Final = Shape(2, 128, 256, heads=4, kv_heads=2, vocabulary=4_096)
