"""Parameters of a model, by how they are quantised and split."""

from __future__ import annotations

from dataclasses import dataclass

from raglan_cli.placement.architecture import Architecture, Attention, Experts, LatentAttention


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts by part.

    What a quantisation makes smaller is `linear` and `experts`; the rest keeps 16 bits. What tensor
    parallelism does not split is `kv_projection`, where there are fewer heads of keys and values
    than GPUs, and `replicated`.
    """

    embedding: int = 0
    """Input embeddings, and the output's where it has its own."""
    linear: int = 0
    """Matrices of attention and feed-forward networks that are split."""
    kv_projection: int = 0
    """Of keys and values."""
    latent: int = 0
    """Projections to latent vectors, which each GPU has in whole."""
    experts: int = 0
    """Matrices of experts that a token may be routed to."""
    replicated: int = 0
    """Norms, biases and routers."""
    vision: int = 0

    @property
    def total(self) -> int:
        """All parameters: of a mixture, those of every expert."""
        return (
            self.embedding
            + self.linear
            + self.kv_projection
            + self.latent
            + self.experts
            + self.replicated
            + self.vision
        )

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(*(getattr(self, n) + getattr(other, n) for n in self.__slots__))

    def times(self, count: int) -> Parameters:
        """Return those of `count` like parts."""
        return Parameters(*(getattr(self, name) * count for name in self.__slots__))


def count(model: Architecture) -> Parameters:
    """Count the parameters that vLLM loads of `model`."""
    norm = model.hidden * (2 if model.norm_bias else 1)
    embeddings = model.vocabulary * model.hidden * (1 if model.is_tied else 2)
    total = Parameters(embedding=embeddings, replicated=norm, vision=model.vision)
    norms = Parameters(replicated=norm * model.norms)
    total += (_attention(model) + norms).times(model.layers)
    mixtures = len(model.experts.layers) if model.experts else 0
    total += _dense(model, model.intermediate).times(model.layers - mixtures)
    return total + _mixture(model, model.experts).times(mixtures) if model.experts else total


def _attention(model: Architecture) -> Parameters:
    attention, hidden = model.attention, model.hidden
    if isinstance(attention, LatentAttention):
        return _latent(attention, hidden)
    return _grouped(attention, hidden)


def _grouped(attention: Attention, hidden: int) -> Parameters:
    query = attention.heads * attention.head_dim
    key_value = 2 * attention.kv_heads * attention.head_dim
    small = query + key_value if attention.bias else 0
    small += hidden if attention.output_bias else 0
    small += 2 * attention.head_dim if attention.head_norms else 0
    small += attention.heads if attention.sinks else 0
    return Parameters(linear=2 * hidden * query, kv_projection=hidden * key_value, replicated=small)


def _latent(attention: LatentAttention, hidden: int) -> Parameters:
    heads, rank = attention.heads, attention.q_rank
    query = heads * (attention.nope_dim + attention.rope_dim)
    expanded = heads * (attention.nope_dim + attention.value_dim)
    return Parameters(
        linear=(rank or hidden) * query
        + attention.kv_rank * expanded
        + heads * attention.value_dim * hidden,
        latent=hidden * (rank + attention.kv_rank + attention.rope_dim),
        replicated=rank + attention.kv_rank,
    )


def _dense(model: Architecture, intermediate: int) -> Parameters:
    matrices = 3 if model.is_gated else 2
    bias = (matrices - 1) * intermediate + model.hidden if model.mlp_bias else 0
    return Parameters(linear=matrices * model.hidden * intermediate, replicated=bias)


def _mixture(model: Architecture, experts: Experts) -> Parameters:
    hidden, matrices = model.hidden, 3 if model.is_gated else 2
    router = hidden * experts.count + (experts.count if experts.router_bias else 0)
    biases = experts.count * ((matrices - 1) * experts.intermediate + hidden) if experts.bias else 0
    return Parameters(
        experts=experts.count * matrices * hidden * experts.intermediate,
        linear=matrices * hidden * experts.shared_intermediate,
        replicated=router + biases + (hidden if experts.shared_gate else 0),
    )
