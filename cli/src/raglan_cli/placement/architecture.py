"""The dimensions of a language model, read from its `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


class InvalidConfig(ValueError):
    """A configuration that cannot be planned with; the message names the field."""


@dataclass(frozen=True)
class Attention:
    """Heads and projections of one layer."""

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False
    """Bias of query, key and value."""
    output_bias: bool = False
    head_norms: bool = False
    """Norm of queries and keys in each head."""
    sinks: bool = False
    """One learnt logit a head."""


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek): one compressed vector a token is kept."""

    heads: int
    q_rank: int
    """0 for a full query projection."""
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


@dataclass(frozen=True)
class Experts:
    """Feed-forward networks of which a token uses some; all are resident."""

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int = 0
    """Of the experts that every token uses, together."""
    shared_gate: bool = False
    router_bias: bool = False
    bias: bool = False
    """Biases in every expert."""
    layers: frozenset[int] = frozenset()
    """Layers that have experts; the others have one network."""


@dataclass(frozen=True)
class Architecture:
    """A decoder-only language model."""

    model_type: str
    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    """Of a layer without experts."""
    attention: Attention | LatentAttention
    experts: Experts | None = None
    is_gated: bool = True
    """Three matrices in a feed-forward network, else two."""
    mlp_bias: bool = False
    norms: int = 2
    """Norms of one layer."""
    norm_bias: bool = False
    is_tied: bool = False
    """Input and output embeddings are the same matrix."""
    window: int = 0
    """Tokens that a sliding layer sees."""
    sliding: frozenset[int] = frozenset()
    """Layers with a sliding window."""
    max_context: int = 0
    dtype: str = "bfloat16"
    vision: int = 0
    """Parameters of a tower for images."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader of the plan has to know about these figures."""


@dataclass(frozen=True)
class _Family:
    """What the code of a model has and its configuration does not say."""

    bias: bool = False
    head_norms: bool = False
    norms: int = 2
    is_tied: bool = False
    sinks: bool = False
    is_gated: bool = True


_FAMILIES: Final = {
    "llama": _Family(),
    "mistral": _Family(),
    "ministral": _Family(),
    "mixtral": _Family(),
    "phi3": _Family(),
    "granite": _Family(),
    "granitemoe": _Family(),
    "qwen2": _Family(bias=True),
    "qwen2_moe": _Family(bias=True),
    "qwen3": _Family(head_norms=True),
    "qwen3_moe": _Family(head_norms=True),
    "gemma": _Family(is_tied=True),
    "gemma2": _Family(is_tied=True, norms=4),
    "gemma3_text": _Family(is_tied=True, norms=4, head_norms=True),
    "deepseek_v2": _Family(),
    "deepseek_v3": _Family(),
    "kimi_k2": _Family(),
    "gpt_oss": _Family(sinks=True),
    "glm4_moe": _Family(),
}
"""Model types whose parameters are counted exactly."""

_UNCOUNTED_LAYERS: Final = frozenset({"linear_attention", "mamba", "conv", "recurrent"})


def read(config: Mapping[str, Any]) -> Architecture:
    """Read a `config.json` of Hugging Face.

    Raises:
        InvalidConfig: it is not that of a decoder, or lacks a dimension.
    """
    text = config.get("text_config")
    reader = _Reader({**config, **text} if isinstance(text, Mapping) else dict(config))
    model_type = str(reader.get("model_type") or "")
    family = _FAMILIES.get(model_type, _Family())
    notes = []
    if model_type not in _FAMILIES:
        named = model_type or "none"
        notes.append(
            f"model_type {named} is counted like a Llama; compare the parameters with its card."
        )
    if reader.get("is_encoder_decoder"):
        raise InvalidConfig("it is an encoder-decoder; raglan plan knows decoders.")
    layers = reader.number("num_hidden_layers", "n_layer")
    hidden = reader.number("hidden_size", "n_embd")
    kinds = _layer_kinds(reader, layers, model_type)
    vision = config.get("vision_config")
    return Architecture(
        model_type=model_type,
        hidden=hidden,
        layers=layers,
        vocabulary=reader.number("vocab_size"),
        intermediate=reader.number("intermediate_size", "n_inner", default=4 * hidden),
        attention=_attention(reader, family, hidden),
        experts=_experts(reader, layers, model_type),
        is_gated=family.is_gated,
        mlp_bias=bool(reader.get("mlp_bias")),
        norms=family.norms,
        is_tied=_is_tied(config, reader, family),
        window=reader.number("sliding_window", default=0) if kinds else 0,
        sliding=kinds,
        max_context=reader.number("max_position_embeddings", "n_positions", default=0),
        dtype=str(reader.get("dtype") or reader.get("torch_dtype") or "bfloat16"),
        vision=vision_parameters(vision) if isinstance(vision, Mapping) else 0,
        quantization=config.get("quantization_config") or reader.get("quantization_config") or {},
        notes=tuple(notes),
    )


class _Reader:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def get(self, name: str) -> Any:
        return self._fields.get(name)

    def number(self, *names: str, default: int | None = None) -> int:
        """Return the first of `names` that is there.

        Raises:
            InvalidConfig: none is there and there is no default, or it is no whole number.
        """
        for name in names:
            if (value := self._fields.get(name)) is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidConfig(f"{name} is {value!r}; it must be a whole number.")
            return value
        if default is None:
            raise InvalidConfig(f"it has no {names[0]}; is it the config.json of a language model?")
        return default


def _is_tied(config: Mapping[str, Any], reader: _Reader, family: _Family) -> bool:
    """The outer configuration decides where both levels name it, as vLLM reads it."""
    value = config.get("tie_word_embeddings", reader.get("tie_word_embeddings"))
    return family.is_tied if value is None else bool(value)


def _attention(reader: _Reader, family: _Family, hidden: int) -> Attention | LatentAttention:
    heads = reader.number("num_attention_heads", "n_head")
    if not heads:
        raise InvalidConfig("num_attention_heads is 0; it must be at least 1.")
    if reader.get("kv_lora_rank"):
        return LatentAttention(
            heads=heads,
            q_rank=reader.number("q_lora_rank", default=0),
            kv_rank=reader.number("kv_lora_rank"),
            rope_dim=reader.number("qk_rope_head_dim"),
            nope_dim=reader.number("qk_nope_head_dim"),
            value_dim=reader.number("v_head_dim"),
        )
    bias = family.bias or bool(reader.get("attention_bias"))
    return Attention(
        heads=heads,
        kv_heads=reader.number("num_key_value_heads", "num_kv_heads", default=heads) or heads,
        head_dim=reader.number("head_dim", default=0) or hidden // heads,
        bias=bias,
        output_bias=bool(reader.get("attention_bias")) and reader.get("model_type") != "glm4_moe",
        head_norms=family.head_norms or bool(reader.get("use_qk_norm")),
        sinks=family.sinks,
    )


def _experts(reader: _Reader, layers: int, model_type: str) -> Experts | None:
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    count = reader.number(*names, default=0)
    if count < 2:
        return None
    intermediate = reader.number("moe_intermediate_size", "intermediate_size")
    shared = reader.number("n_shared_experts", default=0) * intermediate
    first = reader.number("first_k_dense_replace", default=0)
    every = reader.number("decoder_sparse_step", "moe_layer_freq", default=1) or 1
    dense = set(reader.get("mlp_only_layers") or ())
    is_deepseek = model_type in ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe")
    phase = 0 if is_deepseek else every - 1
    return Experts(
        count=count,
        per_token=reader.number("num_experts_per_tok", "num_experts_per_token", default=2),
        intermediate=intermediate,
        shared_intermediate=shared
        or reader.number("shared_expert_intermediate_size", "shared_intermediate_size", default=0),
        shared_gate=model_type == "qwen2_moe",
        router_bias=model_type == "gpt_oss"
        or model_type == "glm4_moe"
        or reader.get("topk_method") == "noaux_tc",
        bias=model_type == "gpt_oss",
        layers=frozenset(
            n for n in range(layers) if n >= first and n not in dense and n % every == phase
        ),
    )


def _layer_kinds(reader: _Reader, layers: int, model_type: str) -> frozenset[int]:
    """Numbers of the layers with a sliding window.

    Raises:
        InvalidConfig: some layers keep a state that is not counted.
    """
    kinds: Sequence[str] = reader.get("layer_types") or ()
    if uncounted := sorted(_UNCOUNTED_LAYERS.intersection(kinds)):
        raise InvalidConfig(
            f"it has layers of kind {uncounted[0]}, whose state raglan plan does not count."
        )
    if not reader.get("sliding_window"):
        return frozenset()
    if kinds:
        return frozenset(n for n, kind in enumerate(kinds) if kind == "sliding_attention")
    if pattern := reader.number("sliding_window_pattern", default=0):
        return frozenset(n for n in range(layers) if (n + 1) % pattern)
    if model_type == "gemma2":
        return frozenset(range(0, layers, 2))
    if model_type == "gemma3_text":
        return frozenset(n for n in range(layers) if (n + 1) % 6)
    if reader.get("use_sliding_window") is False:
        return frozenset()
    if reader.get("use_sliding_window"):
        return frozenset(range(reader.number("max_window_layers", default=0), layers))
    return frozenset(range(layers)) if model_type in ("mistral", "mixtral", "phi3") else frozenset()


def vision_parameters(vision: Mapping[str, Any]) -> int:
    """Count a vision transformer; 0 where its dimensions are not named as usual.

    An estimate: towers differ in their embeddings and in what joins them to the text model.
    """
    reader = _Reader(vision)
    try:
        hidden = reader.number("hidden_size")
        layers = reader.number("num_hidden_layers", "depth")
        intermediate = reader.number("intermediate_size", default=4 * hidden)
        patch = reader.number("patch_size", default=14)
        image = reader.number("image_size", default=0)
    except InvalidConfig:
        return 0
    layer = 4 * hidden * (hidden + 1) + 2 * hidden * intermediate + hidden + intermediate
    positions = (image // patch) ** 2 if patch else 0
    return layers * (layer + 4 * hidden) + hidden * (3 * patch * patch + 1 + positions)
