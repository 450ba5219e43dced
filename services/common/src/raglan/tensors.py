"""Matrices on the wire: numpy on one side, `Tensor` on the other, lengths checked between."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from raglan.errors import InvalidInput
from raglan.v1 import common_pb2

_DTYPES: Final[dict[common_pb2.DType.ValueType, np.dtype[Any]]] = {
    common_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    common_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    common_pb2.DTYPE_INT8: np.dtype("i1"),
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


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
