"""What a model's folder tells: its `config.json`, and the bytes of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan_cli.placement.architecture import InvalidConfig

_CONFIG: Final = "config.json"
_MAX_CONFIG_BYTES: Final = 16 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on disk."""

    config: Mapping[str, Any]
    weight_bytes: int | None
    """Of its safetensors files; None where there are none."""


def read(path: Path) -> Checkpoint:
    """Read a model's folder, or its configuration alone.

    Raises:
        InvalidConfig: no such file, or no configuration of a model; the message says what to give.
    """
    file = path / _CONFIG if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InvalidConfig(f"{path} holds no {_CONFIG}; give the folder of a model, or that file.")
    if not file.is_file():
        raise InvalidConfig(
            f"{path} does not exist; give a model's folder or its {_CONFIG} (from the hub: "
            f"hf download MODEL {_CONFIG})."
        )
    return Checkpoint(_config(file), _weight_bytes(path) if path.is_dir() else None)


def _config(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise InvalidConfig(f"{file} is larger than any {_CONFIG}; is it the right file?")
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InvalidConfig(f"{file} is no JSON; give the {_CONFIG} of a model.") from None
    if not isinstance(config, dict):
        raise InvalidConfig(f"{file} is no JSON object; give the {_CONFIG} of a model.")
    return config


def _weight_bytes(folder: Path) -> int | None:
    """Sum the weight files; their headers are less than a thousandth.

    A repository may hold the same weights twice, as `consolidated` files in another layout.
    """
    files = [file for file in folder.glob("*.safetensors") if file.is_file()]
    usual = [file for file in files if not file.name.startswith("consolidated")]
    sizes = [file.stat().st_size for file in usual or files]
    return sum(sizes) or None
