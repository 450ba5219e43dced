"""Arrays on the wire: numpy on one side, bytes on the other, lengths checked between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raglan.errors import InvalidInput
from raglan.v1 import common_pb2, embedder_pb2

_DTYPES: Final[dict[common_pb2.DType.ValueType, np.dtype[Any]]] = {
    common_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    common_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    common_pb2.DTYPE_INT8: np.dtype("i1"),
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_INDEX: Final = np.dtype("<u4")
_WEIGHT: Final = np.dtype("<f4")


class SparseVector(NamedTuple):
    """Weights of one text on terms of the model's vocabulary."""

    indices: NDArray[np.uint32]
    """Token ids, ascending."""

    weights: NDArray[np.float32]
    """One for each of `indices`, above 0."""


def pack(matrix: NDArray[Any]) -> common_pb2.Tensor:
    """A 2-D float32, float16 or int8 array as a Tensor."""
    rows, dim = matrix.shape
    little = matrix.dtype.newbyteorder("<")
    return common_pb2.Tensor(
        data=np.ascontiguousarray(matrix, dtype=little).tobytes(),
        rows=rows,
        dim=dim,
        dtype=_NAMES[little],
    )


def unpack(tensor: common_pb2.Tensor) -> NDArray[Any]:
    """The array of shape (rows, dim) in `tensor`; read-only, it shares the message's bytes.

    Raises:
        InvalidInput: no dtype, or a length that does not match the shape.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(f"The tensor's dtype is {tensor.dtype}; it must be one of 1, 2, 3.")
    expected = tensor.rows * tensor.dim * dtype.itemsize
    if len(tensor.data) != expected:
        raise InvalidInput(
            f"The tensor holds {len(tensor.data)} bytes; "
            f"{tensor.rows} x {tensor.dim} of {dtype.name} need {expected}."
        )
    return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.rows, tensor.dim)


def pack_sparse(vectors: Sequence[SparseVector]) -> embedder_pb2.SparseVectors:
    """One message for the sparse vectors of all texts."""
    offsets = np.cumsum([0, *(len(each.indices) for each in vectors)])
    return embedder_pb2.SparseVectors(
        indices=b"".join(each.indices.astype(_INDEX).tobytes() for each in vectors),
        weights=b"".join(each.weights.astype(_WEIGHT).tobytes() for each in vectors),
        offsets=offsets.astype(_INDEX).tobytes(),
    )


def unpack_sparse(packed: embedder_pb2.SparseVectors) -> list[SparseVector]:
    """The sparse vector of each text; read-only, they share the message's bytes.

    Raises:
        InvalidInput: lengths that do not match, or offsets that do not ascend.
    """
    parts = (packed.indices, packed.weights, packed.offsets)
    if any(len(part) % 4 for part in parts) or len(packed.indices) != len(packed.weights):
        raise InvalidInput(
            f"The sparse vectors hold {len(parts[0])} bytes of indices, {len(parts[1])} of weights "
            f"and {len(parts[2])} of offsets; all are multiples of 4, the first two equal."
        )
    indices = np.frombuffer(packed.indices, _INDEX)
    weights = np.frombuffer(packed.weights, _WEIGHT)
    offsets = np.frombuffer(packed.offsets, _INDEX).astype(np.int64)
    if (
        not len(offsets)
        or offsets[0]
        or offsets[-1] != len(indices)
        or (np.diff(offsets) < 0).any()
    ):
        raise InvalidInput(
            f"The offsets of the sparse vectors do not lead from 0 up to {len(indices)}."
        )
    return [
        SparseVector(indices[start:end], weights[start:end]) for start, end in pairwise(offsets)
    ]


def pack_tokens(matrices: Sequence[NDArray[Any]]) -> embedder_pb2.TokenVectors:
    """One message for the token vectors, (tokens, dim), of one text or more."""
    return embedder_pb2.TokenVectors(
        vectors=pack(np.concatenate(matrices)), counts=[len(each) for each in matrices]
    )


def unpack_tokens(packed: embedder_pb2.TokenVectors) -> list[NDArray[Any]]:
    """The token vectors of each text; read-only, they share the message's bytes.

    Raises:
        InvalidInput: counts that do not add up to the rows, or a tensor that is none.
    """
    rows = unpack(packed.vectors)
    if sum(packed.counts) != len(rows):
        raise InvalidInput(
            f"The counts of the token vectors add up to {sum(packed.counts)}; "
            f"there are {len(rows)} rows."
        )
    return np.split(rows, np.cumsum(packed.counts)[:-1]) if packed.counts else []
