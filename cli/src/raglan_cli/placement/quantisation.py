"""Bytes a parameter takes, by the quantisation that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from raglan_cli.placement.architecture import InvalidConfig

_SIXTEEN_BITS: Final = 2.0


@dataclass(frozen=True)
class Precision:
    """Bytes a parameter."""

    name: str
    linear: float = _SIXTEEN_BITS
    """Of the matrices of attention and feed-forward networks, scales included."""
    experts: float = _SIXTEEN_BITS
    """Of routed experts."""
    other: float = _SIXTEEN_BITS
    """Of embeddings, norms and biases."""


def _grouped(bits: float, group: int, *, zero_points: bool) -> float:
    """Bytes of a weight with a 16-bit scale a group, and with a zero point of as many bits."""
    extra = 2 + (bits / 8 if zero_points else 0)
    return bits / 8 + (extra / group if group > 0 else 0)


def of_config(quantization: Mapping[str, Any], dtype: str) -> Precision:
    """Return the precision of a checkpoint.

    Args:
        quantization: `quantization_config` of the model; empty for none.
        dtype: of the configuration. vLLM serves float32 checkpoints in 16 bits.

    Raises:
        InvalidConfig: a method whose sizes are not known here.
    """
    if not quantization:
        name = dtype.removeprefix("torch.")
        return Precision("float16" if name == "float32" else name)
    method = str(quantization.get("quant_method") or "modelopt").lower().replace("_", "-")
    bits = quantization.get("bits") or quantization.get("w_bit") or 4
    group = int(quantization.get("group_size") or quantization.get("q_group_size") or 128)
    match method:
        case "fp8" | "fbgemm-fp8":
            return both("fp8", 1.0)
        case "awq" | "gptq" | "awq-marlin" | "gptq-marlin":
            size = _grouped(float(bits), group, zero_points=True)
            return both(f"{method.removesuffix('-marlin')} {bits} bits", size)
        case "bitsandbytes":
            four = bool(quantization.get("load_in_4bit"))
            return both("bitsandbytes", 0.5 + 4 / 64 if four else 1.0)
        case "mxfp4":
            return Precision("mxfp4", experts=_grouped_block(4, 32))
        case "compressed-tensors":
            return _compressed(quantization)
        case "modelopt" | "modelopt-fp4":
            return _modelopt(quantization)
    raise InvalidConfig(
        f"quant_method is {method!r}; raglan plan knows fp8, awq, gptq, bitsandbytes, mxfp4, "
        "compressed-tensors and modelopt."
    )


def on_load(method: str) -> Precision:
    """Return the precision of a 16-bit checkpoint that vLLM quantises while it loads.

    Raises:
        InvalidConfig: a method that needs a checkpoint of its own.
    """
    if method == "fp8":
        return both("fp8", 1.0)
    if method == "bitsandbytes":
        return both("bitsandbytes", 0.5 + 4 / 64)
    raise InvalidConfig(f"{method!r} cannot be done while loading; use fp8 or bitsandbytes.")


def both(name: str, size: float) -> Precision:
    """Return the precision with `size` bytes for all matrices."""
    return Precision(name, linear=size, experts=size)


def _grouped_block(bits: int, block: int) -> float:
    """Bytes of a weight with an 8-bit scale a block."""
    return bits / 8 + 1 / block


def _compressed(quantization: Mapping[str, Any]) -> Precision:
    groups: Mapping[str, Mapping[str, Any]] = quantization.get("config_groups") or {}
    weights = next((group.get("weights") for group in groups.values()), None) or {}
    bits = int(weights.get("num_bits") or 8)
    group = int(weights.get("group_size") or 0)
    name = f"{weights.get('type', 'int')} {bits} bits"
    return both(name, _grouped(bits, group, zero_points=weights.get("symmetric") is False))


def _modelopt(quantization: Mapping[str, Any]) -> Precision:
    inner = quantization.get("quantization") or quantization
    algorithm = str(inner.get("quant_algo") or "").upper()
    if algorithm.startswith("FP8"):
        return both("fp8", 1.0)
    if "FP4" in algorithm:
        return both("nvfp4", _grouped_block(4, 16))
    raise InvalidConfig(
        f"quant_algo is {algorithm or 'missing'}; raglan plan knows FP8 and NVFP4 of modelopt."
    )
