"""Token vectors and sparse vectors in both stores, against their definitions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever import wire
from raglan_retriever.chunk_vectors import ChunkVectors
from raglan_retriever.collection import FORMAT, Collection, FurtherVectors, Model
from raglan_retriever.index import Index
from raglan_retriever.lexical import Sparse
from raglan_retriever.model_legs import QueryVectors
from raglan_retriever.query import Query
from raglan_retriever.stores.optimizing import optimize
from raglan_retriever.stores.plans import Planner, Size
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.shard_vectors import Vectors
from raglan_retriever.stores.store import LateInteraction, LearnedSparse, Point, Search
from raglan_retriever.transfer import Transfer

COUNT = 12
BOTH = FurtherVectors(token_vectors=True, token_pooling=2, sparse=True)
IDS = [f"d{n}#0" for n in range(COUNT)]


def tokens_of(vectors: Any, number: int) -> np.ndarray:
    """Token vectors of a chunk; each has another number of them."""
    made: np.ndarray = vectors(3 + number, seed=100 + number).astype(np.float16)
    return made


def sparse_of(number: int) -> Sparse:
    return Sparse([number, 50], [1.0 + number, 0.5]) if number else Sparse([], [])


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Model) -> Index:
    await index.create("c", model, 1000, 0, further=BOTH)
    further = ChunkVectors(
        [tokens_of(vectors, n) for n in range(COUNT)], [sparse_of(n) for n in range(COUNT)]
    )
    chunks = [chunk(id_, f"words {n}", metadata={"even": n % 2 == 0}) for n, id_ in enumerate(IDS)]
    await index.upsert("c", model, chunks, vectors(COUNT), further=further)
    return index


def max_sim(query: np.ndarray, tokens: np.ndarray) -> float:
    return float((query @ tokens.astype(np.float32).T).max(axis=1).mean())


async def scores(index: Index, query: Any, limit: int, where: Any = None) -> dict[str, float]:
    (hits,) = await index.store.search("c", [Search(query, limit)], where)
    chunks = await index.store.fetch("c", [hit.id for hit in hits])
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return {chunks[hit.id].chunk_id: hit.score for hit in hits}


async def test_what_the_dense_vector_finds_is_scored_by_max_sim(
    filled: Index, vectors: Any
) -> None:
    query, dense = vectors(5, seed=7), vectors(1, seed=8)[0]
    nearest = np.argsort(-(vectors(COUNT) @ dense))[:6]
    found = await scores(filled, LateInteraction(dense.tolist(), query), 6)
    wanted = {IDS[n]: max_sim(query, tokens_of(vectors, n)) for n in nearest}
    assert found == pytest.approx(wanted, abs=2e-3)


async def test_filters_hold_for_late_interaction(filled: Index, vectors: Any) -> None:
    query = LateInteraction(vectors(1)[0].tolist(), vectors(5, seed=7))
    found = await scores(filled, query, COUNT, Terms((term("even", True),)))
    assert set(found) == {IDS[n] for n in range(0, COUNT, 2)}


async def test_term_weights_of_the_model_are_scored_by_their_product(filled: Index) -> None:
    found = await scores(filled, LearnedSparse([3, 4, 50], [1.0, 0.5, 0.1]), 2)
    assert found == pytest.approx({IDS[3]: 4.05, IDS[4]: 2.55}, abs=1e-5)


async def test_all_legs_take_part_in_a_dense_search(
    filled: Index, vectors: Any, model: Model
) -> None:
    further = QueryVectors(vectors(5, seed=7), LearnedSparse([9], [1.0]))
    dense = Query(("c",), "dense", 3, vector=vectors(COUNT)[2], model=model)
    plain = (await filled.search(dense)).found
    assert plain[0].chunk.chunk_id == IDS[2]
    assert plain[0].fused is None
    every = (await filled.search(replace(dense, limit=COUNT, further=further))).found
    assert all(hit.fused is not None and hit.dense is not None for hit in every)
    assert [hit.fused for hit in every] == sorted((hit.fused or 0 for hit in every), reverse=True)
    assert [hit.chunk.chunk_id for hit in every] != [
        hit.chunk.chunk_id for hit in (await filled.search(replace(dense, limit=COUNT))).found
    ]


async def test_a_collection_without_them_leaves_the_leg_out(
    filled: Index, chunk: Any, vectors: Any, model: Model
) -> None:
    await filled.create("plain", model, 1000, 0)
    await filled.upsert("plain", model, [chunk("x#0", "words")], vectors(1, seed=3))
    further = QueryVectors(vectors(5, seed=7), LearnedSparse([9], [1.0]))
    query = Query(("c", "plain"), "dense", 20, vector=vectors(COUNT)[2], model=model)
    together = (await filled.search(replace(query, further=further))).found
    without = (await filled.search(query)).found
    assert [hit.chunk for hit in together] == [hit.chunk for hit in without]
    assert all(hit.fused is None for hit in together)


async def test_a_backup_holds_them(filled: Index, vectors: Any) -> None:
    transfer = Transfer(filled)
    held = wire.indexed_from_proto(wire.indexed_to_proto("c", await transfer.chunks("c", IDS)))
    for number, (tokens, sparse) in enumerate(
        zip(held.further.tokens, held.further.sparse, strict=True)
    ):
        assert np.array_equal(tokens, tokens_of(vectors, number))
        assert sparse == sparse_of(number)
    described = wire.description_to_proto(await transfer.description("c"))
    described.name = "copy"
    await transfer.create(wire.description_from_proto(described))
    await transfer.add("copy", held)
    assert (await transfer.description("copy")).further_vectors == BOTH
    again = await transfer.chunks("copy", IDS)
    assert [each.tobytes() for each in again.further.tokens] == [
        each.tobytes() for each in held.further.tokens
    ]


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (ChunkVectors(), "brings token vectors of 0 chunks"),
        (ChunkVectors([np.ones((2, 8), np.float16)]), "brings sparse vectors of 0 chunks"),
        (ChunkVectors([np.ones((0, 8))], [Sparse([], [])]), "at least one row"),
        (ChunkVectors([np.ones((2, 7))], [Sparse([], [])]), "at least one row of 8 finite"),
        (ChunkVectors([np.full((2, 8), np.nan)], [Sparse([], [])]), "finite"),
    ],
)
async def test_what_does_not_fit_is_refused(
    filled: Index, chunk: Any, vectors: Any, model: Model, further: ChunkVectors, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await filled.upsert("c", model, [chunk("x#0")], vectors(1), further=further)


@pytest.mark.parametrize(
    ("tokens", "message"), [((0, 8), "1 to 512 rows"), ((513, 8), "1 to 512"), ((2, 7), "of 8")]
)
async def test_token_vectors_of_another_shape_are_refused(
    filled: Index, vectors: Any, model: Model, tokens: tuple[int, int], message: str
) -> None:
    further = QueryVectors(np.ones(tokens, np.float32))
    query = Query(("c",), "dense", 3, vector=vectors(1)[0], model=model, further=further)
    with pytest.raises(InvalidInput, match=message):
        await filled.search(query)


async def test_an_earlier_retriever_does_not_serve_them(filled: Index) -> None:
    described = await filled.store.collection("c")
    assert described.to_json()["format"] == FORMAT == 2
    assert Collection.from_json(described.to_json()) == described
    plain = replace(described, further_vectors=FurtherVectors())
    assert plain.to_json()["format"] == 1


async def test_an_index_built_anew_keeps_them(tmp_path: Path, vectors: Any) -> None:
    """The graph and its quantization are of the dense vectors alone."""
    path, count = tmp_path / "shard", 600
    Shard.create(path, Vectors(8, BOTH))
    shard = Shard(path)
    tokens = [vectors(3, seed=n).astype(np.float16) for n in range(count)]
    dense = vectors(count)
    shard.upsert(
        [
            Point(
                str(UUID(int=n)),
                {},
                dense[n].tolist(),
                Sparse([1], [1.0]),
                tokens[n],
                Sparse([n], [2.0]),
            )
            for n in range(count)
        ]
    )
    assert shard.unindexed() == count
    shard.flush()
    shard.close()
    plan = Planner(0.95, 10**9).plan(Size(count, 8))
    await optimize(path, rewrite=True, plan=plan)
    built = Shard(path, plan)
    assert built.unindexed() == 0
    query = vectors(5, seed=7)
    found = built.search(Search(LateInteraction(dense[0].tolist(), query), 20), None)
    assert len(found) == 20
    expected = {str(UUID(int=n)): max_sim(query, tokens[n]) for n in range(count)}
    assert all(hit.score == pytest.approx(expected[hit.id], abs=2e-3) for hit in found)
    assert [hit.id for hit in built.search(Search(LearnedSparse([9], [1.0]), 5), None)] == [
        str(UUID(int=9))
    ]
    built.close()
