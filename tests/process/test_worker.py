"""Streams in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from raglan.errors import Unavailable
from raglan.scheduling import DeviceLost
from raglan.scheduling.worker import Worker

Doubling = Worker[int, int, str]


def load(name: str) -> tuple[Callable[[Sequence[int]], list[int]], str]:
    if name == "missing":
        raise Unavailable("There is no such device.")
    if name == "broken":
        os._exit(3)

    def double(batch: Sequence[int]) -> list[int]:
        if 0 in batch:
            raise ValueError("poison")
        if -1 in batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 * item for item in batch]

    return double, f"{name} in {os.getpid()}"


@pytest.fixture
def worker() -> Iterator[Doubling]:
    made: Doubling = Worker(partial(load, "fine"), name="fine")
    yield made
    made.close()


def test_batches_run_in_another_process(worker: Doubling) -> None:
    name, _, pid = worker.ready(30).partition(" in ")
    assert name == "fine"
    assert int(pid) != os.getpid()
    assert worker([1, 2, 3]) == [2, 4, 6]


def test_a_failing_batch_leaves_the_worker_working(worker: Doubling) -> None:
    worker.ready(30)
    with pytest.raises(RuntimeError, match="ValueError in a worker"):
        worker([1, 0])
    assert worker([5]) == [10]


def test_a_worker_that_dies_is_a_lost_device(worker: Doubling) -> None:
    worker.ready(30)
    with pytest.raises(DeviceLost):
        worker([-1])
    with pytest.raises(DeviceLost):
        worker([1])


def test_what_cannot_load_says_why() -> None:
    for name, error in (("missing", Unavailable), ("broken", DeviceLost)):
        worker: Doubling = Worker(partial(load, name), name=name)
        with pytest.raises(error):
            worker.ready(30)
        worker.close()


def test_closing_ends_the_process(worker: Doubling) -> None:
    pid = int(worker.ready(30).partition(" in ")[2])
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
