"""An engine that speculates, hangs, is killed, is stopped: each test has one of its own to harm."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from answers import OPTIONS, QUESTION, Reader, answer, engine_process, reading, until
from raglan.errors import InvalidInput, Unavailable
from raglan.health import Health
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.engines.vllm_options import Ngram
from raglan_generator.generation import Sampling
from raglan_generator.language_model import End

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.loop_stall_s(5),  # vLLM's imports, where this file runs alone
]

STALLED_AFTER_S = 1.0
DRAIN_S = 4.0


def own(folder: Path, **options: object) -> VllmModel:
    """An engine of one's own, not yet started."""
    changed = OPTIONS.model_copy(update={"stalled_after_s": STALLED_AFTER_S, **options})
    return VllmModel(str(folder), changed, shutdown_timeout_s=DRAIN_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harmed(model_folder: Path) -> AsyncIterator[VllmModel]:
    """What is done to it, the next test must be able to live with; the last one kills it."""
    model = own(model_folder)
    try:
        await model.start()
        yield model
    finally:
        await model.close()


@contextmanager
def stopped(process: BaseProcess) -> Iterator[None]:
    """It does not run until the end of the block."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("last", ["answered", "left", "refused"])
async def test_an_engine_without_work_is_never_stalled(harmed: VllmModel, last: str) -> None:
    if last == "answered":
        await answer(harmed)
    elif last == "left":
        reader = Reader(harmed)
        await reader.begun()
        await reader.leave()
    else:
        with pytest.raises(InvalidInput):
            await answer(harmed, request=replace(QUESTION, sampling=Sampling(temperature=-1)))
    healths = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.5 * STALLED_AFTER_S):
            await until(lambda: healths.add(harmed.health()), "never")
    assert healths == {Health.SERVING}


async def test_a_hung_engine_is_stalled_until_it_moves_again(harmed: VllmModel) -> None:
    readers = [Reader(harmed) for _ in range(3)]
    async with reading(*readers):
        with stopped(engine_process()):
            taken_s = await until(lambda: harmed.health() is Health.STALLED, "it is stalled")
        assert taken_s < STALLED_AFTER_S + 1
        await until(lambda: harmed.health() is Health.SERVING, "it serves again")
        before = [len(reader.pieces) for reader in readers]

        def all_go_on() -> bool:
            return all(len(r.pieces) > n for r, n in zip(readers, before, strict=True))

        await until(all_go_on, "the answers go on")


async def test_a_hung_engine_is_stalled_though_its_callers_have_left(harmed: VllmModel) -> None:
    reader = Reader(harmed)
    await reader.begun()
    with stopped(engine_process()):
        await reader.leave()
        await until(lambda: harmed.health() is Health.STALLED, "it is stalled")
    await until(lambda: harmed.health() is Health.SERVING, "it serves again")


async def test_a_killed_engine_ends_its_answers_and_is_dead(harmed: VllmModel) -> None:
    process = engine_process()
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    readers = [Reader(harmed) for _ in range(3)]
    await asyncio.gather(*(reader.begun() for reader in readers))
    process.kill()
    await asyncio.wait([reader.task for reader in readers], timeout=5)
    for reader in readers:
        assert reader.task.done()
        assert isinstance(reader.task.exception(), Unavailable), reader.task
    assert harmed.health() is Health.DEAD
    with pytest.raises(Unavailable):
        await answer(harmed)
    await until(lambda: not any(p.is_running() for p in family), "none of it is left")


async def test_speculation_proposes_tokens_and_some_are_kept(speculating: VllmModel) -> None:
    await answer(speculating, request=replace(QUESTION, max_tokens=300))
    load = speculating.load()
    assert load.drafted_total >= load.accepted_total > 50


async def test_a_stop_lets_answers_finish_and_ends_those_that_take_too_long(
    speculating: VllmModel,
) -> None:
    # Of random tokens none repeat, so that speculation does not make them short.
    slow = replace(QUESTION, max_tokens=4_000, sampling=Sampling(temperature=1.0))
    short = Reader(speculating, replace(QUESTION, max_tokens=60))
    long = [Reader(speculating, slow) for _ in range(12)]
    await asyncio.gather(*(reader.begun() for reader in [short, *long]))
    await speculating.close()
    assert isinstance(short.pieces[-1], End)
    await asyncio.wait([reader.task for reader in long], timeout=1)
    ended = [reader.task.exception() for reader in long if reader.task.done()]
    assert len(ended) == len(long)
    assert all(error is None or isinstance(error, Unavailable) for error in ended), ended
    assert any(ended)
    with pytest.raises(Unavailable, match="stopping"):
        await answer(speculating)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speculating(model_folder: Path) -> AsyncIterator[VllmModel]:
    """Proposes what it finds in the prompt."""
    model = own(model_folder, speculation=Ngram(method="ngram", num_speculative_tokens=4))
    try:
        await model.start()
        yield model
    finally:
        await model.close()


async def test_a_start_that_is_given_up_leaves_no_process(model_folder: Path) -> None:
    """Processes that are not of this engine, such as another one, stay."""
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
    other.start()
    before = set(psutil.Process().children(recursive=True))
    model = VllmModel(str(model_folder), OPTIONS)
    starting = asyncio.create_task(model.start())
    await until(
        lambda: any(
            "multiprocessing.spawn" in " ".join(child.cmdline())
            for child in set(psutil.Process().children()) - before
        ),
        "the engine's process starts",
    )
    starting.cancel()
    await asyncio.wait([starting])
    await model.close()
    left = [child for child in psutil.Process().children(recursive=True) if child not in before]
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]
    assert other.is_alive()
    other.kill()
    other.join()
