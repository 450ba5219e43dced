from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from raglan import tensors
from raglan.errors import InvalidInput
from raglan.v1 import common_pb2


@given(
    arrays.arrays(
        dtype=st.sampled_from([np.float32, np.float16, np.int8]),
        shape=arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9),
    )
)
def test_a_matrix_survives_the_wire_bit_for_bit(matrix: np.ndarray) -> None:
    message = common_pb2.Tensor.FromString(tensors.pack(matrix).SerializeToString())
    back = tensors.unpack(message)
    assert back.dtype == matrix.dtype
    assert back.shape == matrix.shape
    assert back.tobytes() == matrix.tobytes()


def test_big_endian_input_arrives_with_its_values() -> None:
    matrix = np.array([[1.0, 2.5]], dtype=">f4")
    assert tensors.unpack(tensors.pack(matrix)).tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(("rows", "dim"), [(1, 2), (3, 1), (0, 1), (2**31, 2**31)])
def test_a_length_that_does_not_fit_the_shape_is_refused(rows: int, dim: int) -> None:
    tensor = common_pb2.Tensor(data=b"\0" * 4, rows=rows, dim=dim, dtype=common_pb2.DTYPE_FLOAT32)
    with pytest.raises(InvalidInput, match="4 bytes"):
        tensors.unpack(tensor)


def test_a_tensor_without_dtype_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dtype"):
        tensors.unpack(common_pb2.Tensor(data=b"", rows=0, dim=0))
