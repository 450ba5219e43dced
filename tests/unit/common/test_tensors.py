from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from raglan import tensors
from raglan.errors import InvalidInput
from raglan.v1 import common_pb2, embedder_pb2


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


SPARSE = st.lists(
    st.dictionaries(st.integers(0, 2**32 - 1), st.floats(0.125, 9, width=32), max_size=5),
    max_size=6,
)


@given(SPARSE)
def test_sparse_vectors_come_back_as_they_went(texts: list[dict[int, float]]) -> None:
    vectors = [
        tensors.SparseVector(
            np.array(sorted(text), np.uint32),
            np.array([text[index] for index in sorted(text)], np.float32),
        )
        for text in texts
    ]
    back = tensors.unpack_sparse(tensors.pack_sparse(vectors))
    assert [dict(zip(each.indices, each.weights, strict=True)) for each in back] == texts


@pytest.mark.parametrize(
    ("indices", "weights", "offsets"),
    [
        (b"1234", b"", [0, 1]),
        (b"12345", b"12345", [0, 1]),
        (b"1234", b"1234", []),
        (b"1234", b"1234", [0, 2]),
        (b"1234", b"1234", [1, 1]),
        (b"1234", b"1234", [0, 2, 1]),
    ],
)
def test_sparse_vectors_whose_parts_disagree_are_refused(
    indices: bytes, weights: bytes, offsets: list[int]
) -> None:
    packed = embedder_pb2.SparseVectors(
        indices=indices, weights=weights, offsets=np.array(offsets, "<u4").tobytes()
    )
    with pytest.raises(InvalidInput, match="sparse vectors"):
        tensors.unpack_sparse(packed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_token_vectors_come_back_as_they_went(counts: list[int]) -> None:
    matrices = [np.full((count, 3), number, np.float32) for number, count in enumerate(counts)]
    back = tensors.unpack_tokens(tensors.pack_tokens(matrices))
    assert len(back) == len(matrices)
    assert all(np.array_equal(a, b) for a, b in zip(back, matrices, strict=True))


def test_token_vectors_whose_counts_disagree_with_the_rows_are_refused() -> None:
    packed = tensors.pack_tokens([np.zeros((3, 2), np.float32)])
    packed.counts.append(1)
    with pytest.raises(InvalidInput, match="add up to 4; there are 3 rows"):
        tensors.unpack_tokens(packed)
