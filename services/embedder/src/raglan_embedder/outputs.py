"""Outputs of a text: a dense vector, term weights, token vectors.

All come from one pass of the encoder. Each text of a batch may want something else, so that a
query for late interaction shares a batch with plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from raglan.encoders.heads import Heads, unit_rows
from raglan.encoders.sessions import Run, TokenIds, pad
from raglan.errors import Internal, InvalidInput, PayloadTooLarge
from raglan.tensors import SparseVector

_FLOAT_BYTES: Final = 4
_TOKEN_FLOAT_BYTES: Final = 2
_SPARSE_BYTES: Final = 8
"""Of a term: its token id and its weight."""


class Outputs(Flag):
    """Outputs that a call requests or a model provides."""

    DENSE = auto()
    SPARSE = auto()
    TOKEN_VECTORS = auto()

    def names(self) -> list[str]:
        """Names as in `ServiceInfo.outputs` and the request's fields."""
        return [str(output.name).lower() for output in self]


class EncodeItem(NamedTuple):
    """One text of a batch."""

    ids: TokenIds
    outputs: Outputs = Outputs.DENSE


@dataclass(frozen=True, slots=True)
class TextVectors:
    """The requested outputs of one text; others are None."""

    tokens: int
    """Of the text as the model saw it: with prompt and special tokens, after cutting."""

    dense: NDArray[np.float32] | None = None
    """(dimension,), of length 1."""

    sparse: SparseVector | None = None

    token_vectors: NDArray[np.float32] | None = None
    """(tokens, dimension), rows of length 1."""


def outputs_of(heads: Heads) -> Outputs:
    """Return the outputs of a model with `heads`. Every model gives token vectors."""
    always = Outputs.DENSE | Outputs.TOKEN_VECTORS
    return always | Outputs.SPARSE if heads.sparse is not None else always


def refuse(wanted: Outputs, gives: Outputs, model_id: str) -> None:
    """Raise InvalidInput when the model does not give all that is wanted."""
    if missing := wanted & ~gives:
        raise InvalidInput(
            f"{' and '.join(missing.names())} asked for, but {model_id} as loaded gives only "
            f"{' and '.join(gives.names())}. Choose a model with the heads for it, such as "
            "BAAI/bge-m3, on the engine openvino, onnx or torch (RAGLAN_EMBEDDER_MODEL)."
        )


def check_size(wanted: Outputs, counts: Sequence[int], dimension: int, max_bytes: int) -> None:
    """Raise PayloadTooLarge when the reply to a call would be larger than a message may be.

    Args:
        wanted: requested outputs.
        counts: tokens of each text.
        dimension: of a vector.
        max_bytes: limit of a message.
    """
    if Outputs.TOKEN_VECTORS not in wanted:
        return
    tokens = sum(counts)
    of_tokens = _TOKEN_FLOAT_BYTES * dimension * tokens
    size = of_tokens + _FLOAT_BYTES * dimension * len(counts) + _SPARSE_BYTES * tokens
    if size > max_bytes:
        raise PayloadTooLarge(
            f"The token vectors of {tokens} tokens make a reply of up to {size} bytes; it may have "
            f"{max_bytes} (RAGLAN_EMBEDDER_MAX_MESSAGE_BYTES). Send fewer texts a call."
        )


def checked(text: TextVectors) -> TextVectors | Internal:
    """`text`, or the error in its place where a vector holds what no search can use."""
    dense, sparse, tokens = text.dense, text.sparse, text.token_vectors
    good = (
        (dense is None or (bool(np.isfinite(dense).all()) and bool(dense.any())))
        and (sparse is None or bool(np.isfinite(sparse.weights).all()))
        and (tokens is None or bool(np.isfinite(tokens).all()))
    )
    if good:
        return text
    return Internal(
        "The model gives a vector that is zero or holds numbers that are not finite. With "
        "precision f16 or int8, try another one (RAGLAN_EMBEDDER_PRECISION)."
    )


def encode(
    run: Run, batch: Sequence[EncodeItem], *, pooling: str, heads: Heads
) -> list[TextVectors]:
    """Run the encoder once over `batch` and give each text what it wants.

    Text by text over its own tokens: nothing depends on padding or on what else is in the batch.

    Args:
        run: token vectors from token ids, see `sessions.Run`.
        batch: items of one device batch.
        pooling: "mean" or "cls".
        heads: heads of the model.
    """
    states = run(*pad([text.ids for text in batch]))
    return [
        _text_vectors(row[: len(text.ids)], text, pooling, heads)
        for row, text in zip(states, batch, strict=True)
    ]


def pooled(states: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """The vector of one text, of length 1, from its token vectors (tokens, dim)."""
    vector = states[0] if pooling == "cls" else states.mean(axis=0, dtype=np.float32)
    unit: NDArray[np.float32] = unit_rows(vector[None])[0]
    return unit


def _text_vectors(
    states: NDArray[np.float32], text: EncodeItem, pooling: str, heads: Heads
) -> TextVectors:
    wants = text.outputs
    return TextVectors(
        tokens=len(text.ids),
        dense=pooled(states, pooling) if Outputs.DENSE in wants else None,
        sparse=heads.sparse_vector(states, text.ids) if Outputs.SPARSE in wants else None,
        token_vectors=heads.token_vectors(states) if Outputs.TOKEN_VECTORS in wants else None,
    )
