"""The folder of a sentence-transformers model: its modules, where each lies, what each says.

As `sentence_transformers.SentenceTransformer` reads it, without that library. What shapes a vector
and is not understood here is refused with a sentence, never guessed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan.errors import InvalidInput, Unavailable

_PLAIN_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
_POOLING_NAMES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TRANSFORMER_CONFIGS: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names that sentence-transformers has given to the configuration of its first module."""


def read_json(file: Path, default: Any = None) -> Any:
    """Read JSON from `file`; return `default`, where one is given, when there is no such file.

    Raises:
        Unavailable: it cannot be read.
    """
    if default is not None and not file.is_file():
        return default
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Unavailable(f"{file} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Module:
    """One step from tokens to a vector."""

    kind: str
    """The name of its class."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Modules of a model folder."""

    root: Path
    modules: tuple[Module, ...]
    """Empty for a bare transformer."""

    @classmethod
    def of(cls, root: Path) -> Layout:
        """Read `modules.json` of model folder `root`.

        Raises:
            Unavailable: it cannot be read, or names a folder outside `root`.
        """
        modules = []
        for entry in read_json(root / "modules.json", []):
            # Without resolving links: the hub's cache is made of them.
            folder = Path(os.path.normpath(root / entry.get("path", "")))
            if not folder.is_relative_to(root):
                raise Unavailable(f"{root}/modules.json names a folder outside it: {folder}.")
            modules.append(Module(entry["type"].rpartition(".")[2], folder))
        return cls(root, tuple(modules))

    @property
    def transformer(self) -> Path:
        """The folder with `config.json`, `tokenizer.json` and the weights."""
        return next((m.folder for m in self.modules if m.kind == "Transformer"), self.root)

    @property
    def is_plain(self) -> bool:
        """Return whether there is nothing but a transformer, pooling and normalisation."""
        return {module.kind for module in self.modules} <= _PLAIN_MODULES

    def pooling(self) -> tuple[str, bool]:
        """The pooling mode, and whether the tokens of a prompt take part in it.

        The mode is empty where the files name none. sentence-transformers then takes the mean, with
        a warning; many models that are published without `modules.json` were trained otherwise.
        """
        stated = [module.folder for module in self.modules if module.kind == "Pooling"]
        folders = stated or ([] if self.modules else [self.root / "1_Pooling"])
        if len(folders) != 1:
            return "", True
        config: dict[str, Any] = read_json(folders[0] / "config.json", {})
        mode = config.get("pooling_mode") or [
            name for key, name in _POOLING_NAMES.items() if config.get(key)
        ]
        if isinstance(mode, list):
            mode = "+".join(mode)
        if stated and not mode and not any(key.startswith("pooling_mode") for key in config):
            mode = "mean"  # the default of the module, which is there
        return mode, bool(config.get("include_prompt", True))

    def transformer_config(self) -> Mapping[str, Any]:
        """Settings of the first module that sentence-transformers adds to transformers' own files.

        Raises:
            InvalidInput: it asks for what no engine here does.
        """
        for name in _TRANSFORMER_CONFIGS:
            if (file := self.transformer / name).is_file():
                config: dict[str, Any] = read_json(file)
                break
        else:
            return {}
        if config.get("do_lower_case") and not _lowers(self.transformer / "tokenizer.json"):
            raise InvalidInput(
                f"{file} says do_lower_case, and tokenizer.json does not lower the case: vectors "
                "would differ from those of sentence-transformers. Save the model with a tokenizer "
                "that does it."
            )
        return config


def _lowers(tokenizer: Path) -> bool:
    normalizer = read_json(tokenizer, {}).get("normalizer") or {}
    steps = normalizer.get("normalizers") or [normalizer]
    return any(step.get("lowercase") or step.get("type") == "Lowercase" for step in steps)
