"""The embedder over engines whose output the test chooses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from raglan import tenancy
from raglan.deadline import Deadline
from raglan.encoders.metrics import EncoderMetrics
from raglan.errors import Internal, Unavailable
from raglan.scheduling import Lane
from raglan_embedder.embedding import Embedder, TextLimits
from raglan_embedder.encoding import DeviceEncoder, batch_limits, slices
from raglan_embedder.engines import EmbedBatch, Engine, null
from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors

Row = Callable[[EncodeItem], np.ndarray]
Make = Callable[..., Embedder]


def stream_of(row: Row) -> EmbedBatch:
    def stream(batch: Sequence[EncodeItem]) -> list[TextVectors]:
        rows = np.stack([row(text) for text in batch]).astype(np.float32)
        return [TextVectors(len(t.ids), r) for t, r in zip(batch, rows, strict=True)]

    return stream


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """Makes embedders over one stream, which gives each text the row that a function says."""
    encoders: list[DeviceEncoder] = []

    def made(row: Row, bulk_row: Row | None = None) -> Embedder:
        engine = Engine(
            "fake",
            (stream_of(row),),
            device="cpu",
            dtype="f32",
            bulk_streams=() if bulk_row is None else (stream_of(bulk_row),),
            outputs=Outputs.DENSE,
        )
        encoder = DeviceEncoder(
            engine,
            null.MODEL,
            limits=batch_limits(
                engine, tokens=0, texts=0, waiting=256, bulk_share=0.2, margin_s=0.0
            ),
            stalled_after_s=30,
            metrics=EncoderMetrics(CollectorRegistry(), cache="vectors"),
            tokenizing=null.Words(512),
        )
        encoders.append(encoder)
        return Embedder(
            encoder,
            encoder.identity,
            limits=TextLimits(texts=256, chars=1_000),
            cache_bytes=1_000_000,
            looked_up=lambda hits, misses: None,
        )

    yield made
    for encoder in encoders:
        await encoder.close()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
async def test_a_vector_that_no_search_can_use_is_refused_and_not_kept(
    make: Make, bad: float
) -> None:
    values = [bad, 1.0]
    embedder = make(lambda text: np.full(384, values[0] if len(text.ids) == 2 else 1.0))
    for _ in range(2):
        with pytest.raises(Internal, match="zero or holds numbers that are not finite"):
            await embedder.embed(["two words", "one"], deadline=Deadline.after(10))
    values.pop(0)
    batch = await embedder.embed(["two words"], deadline=Deadline.after(10))
    assert batch.vectors.tolist() == [[1.0] * 384]


async def test_a_vector_in_the_cache_keeps_nothing_else_alive(make: Make) -> None:
    embedder = make(lambda text: np.ones(384))
    texts = [f"text {number}" for number in range(32)]
    await embedder.embed(texts, deadline=Deadline.after(10))
    batch = await embedder.embed(texts, deadline=Deadline.after(10))
    held = {id(text.dense.base) for text in batch.texts if text.dense is not None}
    assert held == {id(None)}


async def test_a_text_is_computed_anew_for_each_tenant(make: Make) -> None:
    """Else the time of its call would tell a tenant that another one has sent the same text."""
    ran: list[str] = []

    def row(text: EncodeItem) -> np.ndarray:
        ran.append("computed")
        return np.ones(384)

    embedder = make(row)
    for tenant in ("", "acme", "beta", "acme", ""):
        with tenancy.serving(tenant):
            await embedder.embed(["the same text"], deadline=Deadline.after(10))
    assert len(ran) == 3


async def test_a_query_does_not_wait_for_the_bulk_call_that_holds_its_text(make: Make) -> None:
    """The last text of a bulk call is asked for while the first batch runs: it is run next."""
    started, going = threading.Event(), threading.Event()
    ran: list[int] = []

    def row(text: EncodeItem) -> np.ndarray:
        started.set()
        assert going.wait(20)
        ran.append(text.ids[0])
        return np.ones(384)

    embedder = make(row)
    texts = [f"{number} text" for number in range(200)]
    bulk = asyncio.create_task(embedder.embed(texts, deadline=Deadline.after(60), lane=Lane.BULK))
    assert await asyncio.to_thread(started.wait, 20)
    query = asyncio.create_task(embedder.embed(texts[-1:], deadline=Deadline.after(30)))
    await asyncio.sleep(0)
    going.set()
    await query
    behind = len(ran)
    await bulk
    assert behind < 100, "it waited for the texts before it"
    assert len(ran) == len(set(ran)) == 200, "and nothing was run twice"


def test_texts_are_tokenised_a_slice_at_a_time() -> None:
    texts = ["a" * size for size in (3, 3, 9, 1, 1, 1)]
    assert list(slices(texts, 6)) == [texts[:2], texts[2:3], texts[3:]]
    assert list(slices(["a" * 9], 6)) == [["a" * 9]]


async def test_a_start_that_takes_too_long_names_the_setting(make: Make) -> None:
    embedder = make(lambda text: np.ones(384))
    encoder = cast(DeviceEncoder, embedder._encoder)
    with pytest.raises(Unavailable, match=r"longest text has 512 tokens.*MAX_TOKENS"):
        await encoder.start(deadline=Deadline.after(0))


async def test_queries_pass_while_bulk_runs(make: Make) -> None:
    going = threading.Event()

    def held(text: EncodeItem) -> np.ndarray:
        assert going.wait(60)
        return np.ones(384)

    embedder = make(lambda text: np.ones(384), held)
    bulk = asyncio.create_task(
        embedder.embed(["a passage"], deadline=Deadline.after(60), lane=Lane.BULK)
    )
    await embedder.embed(["a question"], deadline=Deadline.after(60))
    assert not bulk.done()
    going.set()
    await bulk


async def test_fifty_that_ask_at_once_for_one_text_run_it_once(make: Make) -> None:
    going = threading.Event()
    ran: list[int] = []

    def row(text: EncodeItem) -> np.ndarray:
        assert going.wait(60)
        ran.append(len(text.ids))
        return np.ones(384)

    embedder = make(row)
    asked = [
        asyncio.create_task(embedder.embed(["the same"], deadline=Deadline.after(60)))
        for _ in range(50)
    ]
    await asyncio.sleep(0)
    going.set()
    await asyncio.gather(*asked)
    assert ran == [2]
