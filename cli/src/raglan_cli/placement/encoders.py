"""Memory of embedder and reranker on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from raglan_cli.placement import architecture, parameters
from raglan_cli.placement.architecture import InvalidConfig
from raglan_cli.placement.sizes import GIB

MAX_BATCH_TOKENS: Final = 16_384
"""Padded tokens of a batch on a GPU, the default of both services."""

RUNTIME: Final = GIB * 3 // 4
"""CUDA context of a process and torch's workspaces. An allowance: not computed."""

_SLACK: Final = 1.25
"""What torch's allocator keeps beside the tensors. An allowance: not computed."""

_ELEMENT: Final = 2
"""Bytes of a number in f16, the precision on a GPU."""

BUNDLED: Final[Mapping[str, Any]] = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
"""all-MiniLM-L6-v2, the model that comes with the services."""

_ENCODERS: Final = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "camembert", "electra")


@dataclass(frozen=True)
class EncoderMemory:
    """Bytes of one encoder's process."""

    parameters: int
    weights: int
    activations: int
    runtime: int = RUNTIME

    @property
    def total(self) -> int:
        """What the process takes at most."""
        return self.weights + self.activations + self.runtime


def encoder_memory(
    config: Mapping[str, Any], *, batch_tokens: int = MAX_BATCH_TOKENS
) -> EncoderMemory:
    """Compute the memory of an encoder, or of a decoder that embeds or reranks.

    Args:
        config: its `config.json`.
        batch_tokens: padded tokens of a batch; a text longer than this runs alone.

    Raises:
        InvalidConfig: a dimension is missing.
    """
    hidden, intermediate, longest = _dimensions(config)
    total = count(config)
    # A batch holds the residual, queries, keys, values and outputs, the feed-forward network before
    # and after its activation, and a mask of every text: tokens times the longest text.
    batch = max(batch_tokens, longest)
    step = batch * (8 * hidden + 2 * intermediate + longest) * _ELEMENT
    return EncoderMemory(total, total * _ELEMENT, int(step * _SLACK))


def count(config: Mapping[str, Any]) -> int:
    """Count the parameters of an encoder, its pooler included.

    Raises:
        InvalidConfig: a dimension is missing.
    """
    if str(config.get("model_type")) not in _ENCODERS:
        return parameters.count(architecture.read(config)).total
    hidden, intermediate, _ = _dimensions(config)
    embeddings = sum(
        _number(config, name, default)
        for name, default in (
            ("vocab_size", None),
            ("max_position_embeddings", 512),
            ("type_vocab_size", 0),
        )
    )
    layer = 4 * hidden * (hidden + 1) + 2 * hidden * intermediate + intermediate + 5 * hidden
    layers = _number(config, "num_hidden_layers", None)
    return embeddings * hidden + 2 * hidden + layers * layer + hidden * (hidden + 1)


def _dimensions(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Width, width of the feed-forward network, and longest text."""
    hidden = _number(config, "hidden_size", None)
    intermediate = _number(config, "intermediate_size", 4 * hidden)
    longest = min(_number(config, "max_position_embeddings", 512), MAX_BATCH_TOKENS)
    return hidden, intermediate, longest


def _number(config: Mapping[str, Any], name: str, default: int | None) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidConfig(
            f"{name} is missing or no whole number; is it the config.json of an encoder?"
        )
    return value
