"""MaxSim over an encoder that is a table, and what is kept of the passages it read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders import model as models
from raglan.errors import Internal
from raglan.scheduling import Dispatcher, LatencyModel, Limits, Pool
from raglan_reranker.engines.late_interaction import (
    LateInteraction,
    Rounded,
    max_sim,
    normalising,
    tokenizers_of,
)

DIMENSION = 384
TABLE = np.random.default_rng(0).standard_normal((30_522, DIMENSION)).astype(np.float32)
TEXTS = ["a red house", "the green tree", "a house"]


class Encoder:
    """Each token id has its vector; counts the texts it read. Fails on `poison`, a token id."""

    def __init__(self) -> None:
        self.texts = 0
        self.poison = -1
        self.strange = -1

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        self.texts += len(ids)
        if (ids == self.poison).any():
            raise RuntimeError("kernel error")
        vectors: NDArray[np.float32] = TABLE[ids]
        vectors[ids == self.strange] = np.nan
        return vectors


Build = Callable[[float], tuple[LateInteraction, Encoder]]


def dispatcher(pool: Pool[Any, Any], device: str) -> Dispatcher[Any, Any]:
    return Dispatcher(
        [pool],
        limits=Limits(batch_tokens=256, batch_items=8, waiting_items=64),
        latency=lambda: LatencyModel(seconds_per_token=1e-6, overhead_s=1e-4),
        stalled_after_s=30,
        name="rerank",
    )


@pytest.fixture(scope="module")
def model() -> models.EncoderModel:
    return models.read(models.DEFAULT_MODEL)


@pytest_asyncio.fixture
async def build(model: models.EncoderModel) -> AsyncIterator[Build]:
    made = []

    def one(cache_bytes: float) -> tuple[LateInteraction, Encoder]:
        encoder = Encoder()
        engine = LateInteraction(
            [normalising(encoder)],
            model,
            tokenizers_of(model),
            device="cpu",
            dtype="f32",
            dispatcher=dispatcher,
            cache_bytes=cache_bytes,
        )
        made.append(engine)
        return engine, encoder

    yield one
    for engine in made:
        await engine.close()


async def scores(engine: LateInteraction, query: str, texts: list[str]) -> list[float]:
    prepared = engine.prepare(query, texts)
    found, *_ = await engine.score(prepared, len(texts), deadline=Deadline.after(10))
    listed: list[float] = found.tolist()
    return listed


async def test_a_passage_that_holds_the_query_scores_one(build: Build) -> None:
    engine, _ = build(0)
    same, other = await scores(engine, "a red house", ["a red house", "the green tree"])
    assert same == pytest.approx(1, abs=1e-3)
    assert other < same


async def test_a_passage_met_before_is_not_read_again(build: Build) -> None:
    engine, encoder = build(1e6)
    await scores(engine, "a house", TEXTS)
    prepared = engine.prepare("which tree", [*TEXTS, "something new"])
    assert prepared.held == {0, 1, 2}
    await engine.score(prepared, 4, deadline=Deadline.after(10))
    assert encoder.texts == (1 + 3) + (1 + 1)


async def test_kept_and_fresh_vectors_give_the_same_score_to_the_bit(build: Build) -> None:
    keeping, forgetting = build(1e6)[0], build(0)[0]
    await scores(keeping, "another question", TEXTS)
    assert await scores(keeping, "a house", TEXTS) == await scores(forgetting, "a house", TEXTS)


@pytest.mark.parametrize("cache_bytes", [0, 1e6])
async def test_matches_tell_where_the_best_token_for_each_of_the_querys_begins(
    build: Build, cache_bytes: float
) -> None:
    engine, _ = build(cache_bytes)
    text = "😀 the green tree stands by a red house"
    for _ in range(2):
        prepared = engine.prepare("red tree", [text])
        (matches,) = (await engine.score(prepared, 1, deadline=Deadline.after(10))).matches
        assert list(matches) == [text.index("red"), text.index("tree")]


async def test_no_more_vectors_are_kept_than_there_is_room_for(build: Build) -> None:
    room = 3 * 5 * (DIMENSION + 4)
    engine, _ = build(room)
    await scores(engine, "a house", [f"a house {number}" for number in range(20)])
    assert 0 < engine.vectors.size <= room


async def test_a_kernel_error_fails_its_caller_alone_and_keeps_nothing(build: Build) -> None:
    engine, encoder = build(1e6)
    encoder.poison = engine.prepare("poison", ["x"]).query.ids[1]
    with pytest.raises(Internal):
        await scores(engine, "a house", ["a red house", "poison"])
    assert engine.prepare("a house", ["poison"]).held == frozenset()
    assert await scores(engine, "a house", ["a house"]) == [pytest.approx(1, abs=1e-3)]


@pytest.mark.parametrize(("within_s", "fit"), [(1e6, 3), (165.0, 1), (0.0, 0)])
async def test_what_fits_is_the_queues_estimate(
    model: models.EncoderModel, within_s: float, fit: int
) -> None:
    """10 s a token: the query takes 40 s, each passage 50 s; two thirds of the time are planned."""

    def slow(pool: Pool[Any, Any], device: str) -> Dispatcher[Any, Any]:
        return Dispatcher(
            [pool],
            limits=Limits(batch_tokens=256, batch_items=8, waiting_items=64),
            latency=lambda: LatencyModel(seconds_per_token=10.0, overhead_s=0.0),
            stalled_after_s=30,
            name="rerank",
        )

    engine = LateInteraction(
        [normalising(Encoder())],
        model,
        tokenizers_of(model),
        device="cpu",
        dtype="f32",
        dispatcher=slow,
    )
    prepared = engine.prepare("a house", ["a red house", "the green tree", "the red tree"])
    try:
        assert engine.fitting(prepared, deadline=Deadline.after(within_s)) == fit
    finally:
        await engine.close()


async def test_token_vectors_that_are_no_numbers_are_refused_and_not_kept(build: Build) -> None:
    engine, encoder = build(1e6)
    encoder.strange = engine.prepare("strange", ["x"]).query.ids[1]
    with pytest.raises(Internal, match="not numbers"):
        await scores(engine, "a house", ["a red house", "strange"])
    assert engine.prepare("a house", ["strange"]).held == frozenset()


matrices = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.just(8)), elements=st.floats(-100, 100, width=32)
)


@given(matrices)
def test_rounding_turns_no_row_by_more_than_a_hundredth(vectors: NDArray[np.float32]) -> None:
    rounded = Rounded.of(vectors)
    back = rounded.steps * rounded.scale[:, None]
    for before, after in zip(vectors.astype(np.float64), back, strict=True):
        if (length := np.linalg.norm(before)) > 1e-9:
            assert before @ after / length > 1 - 1e-4


def test_max_sim_is_the_mean_of_each_query_tokens_best_match() -> None:
    query = np.eye(2, dtype=np.float32)
    passage = Rounded.of(np.array([[1, 0], [0.6, 0.8]], np.float32))
    assert max_sim(query, [passage])[0] == pytest.approx((1 + 0.8) / 2, abs=0.01)
