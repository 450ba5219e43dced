"""A stream in a process of its own: one for each GPU, all behind one scheduler.

A process, because Python threads that drive several GPUs wait for each other's interpreter lock,
and because a process that a driver error has broken can be ended.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar

import structlog

from raglan.errors import InvalidInput, RaglanError, Unavailable
from raglan.scheduling.work import BatchTooLarge, DeviceLost

Input = TypeVar("Input")
Result = TypeVar("Result")
Description = TypeVar("Description")

log: Final = structlog.get_logger()

_LOAD_S: Final = 300.0
_CLOSE_S: Final = 5.0


class Worker(Generic[Input, Result, Description]):
    """Runs batches in a process of its own, one caller at a time. `close` it."""

    def __init__(
        self,
        load: Callable[[], tuple[Callable[[Sequence[Input]], Sequence[Result]], Description]],
        *,
        name: str,
    ) -> None:
        """Start the process; `ready` waits until it has loaded.

        Args:
            load: called in the process, so a function of a module or a partial of one: what runs
                a batch, and what to tell of it.
            name: name in logs and threads.
        """
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load), name=name, daemon=True)
        self._process.start()
        # The end of the process then shows as the end of the pipe.
        theirs.close()

    def ready(self, timeout_s: float) -> Description:
        """Wait until it has loaded, and return the description that `load` gave.

        Raises:
            RaglanError: why it could not load.
            Unavailable: it ended, or took too long.
        """
        if not self._connection.poll(timeout_s):
            raise Unavailable(f"The worker {self.name} has not loaded within {timeout_s:.0f} s.")
        description: Description = self._received()
        return description

    def __call__(self, batch: Sequence[Input]) -> Sequence[Result]:
        """Results of `batch`.

        Raises:
            DeviceLost: the process has ended.
        """
        try:
            self._connection.send(batch)
        except OSError as error:
            raise DeviceLost(f"The worker {self.name} has ended.") from error
        results: Sequence[Result] = self._received()
        return results

    def close(self) -> None:
        """End the process; one that does not react is killed."""
        self._connection.close()
        self._process.join(_CLOSE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_CLOSE_S)

    def _received(self) -> Any:
        try:
            outcome = self._connection.recv()
        except (EOFError, OSError) as error:
            raise DeviceLost(f"The worker {self.name} has ended.") from error
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@dataclass(frozen=True, slots=True)
class Workers(Generic[Input, Result, Description]):
    """A worker for each of several devices."""

    streams: tuple[Worker[Input, Result, Description], ...]
    descriptions: tuple[Description, ...]
    """The description that each worker gave of what it loaded."""

    close: Callable[[], None]


def on_devices(
    devices: Sequence[str],
    load_on: Callable[[str], tuple[Callable[[Sequence[Input]], Sequence[Result]], Description]],
    *,
    name: str,
) -> Workers[Input, Result, Description]:
    """Load on each of `devices` at the same time, each in a process of its own.

    Args:
        devices: names of devices.
        load_on: as `load` of a worker, for one device.
        name: name in logs and threads.

    Raises:
        InvalidInput: a GPU is named twice.
        RaglanError: why a device cannot be used.
    """
    if len(set(devices)) < len(devices) and any(device != "cpu" for device in devices):
        raise InvalidInput(f"device is {','.join(devices)!r}: name each GPU once.")
    with ExitStack() as stack:
        workers: list[Worker[Input, Result, Description]] = []
        for number, device in enumerate(devices):
            worker = Worker(partial(load_on, device), name=f"{name}-{number}-{device}")
            stack.callback(worker.close)
            workers.append(worker)
        try:
            descriptions = [worker.ready(_LOAD_S) for worker in workers]
        except DeviceLost as error:
            raise Unavailable(f"A device cannot be used: {error}") from error
        closing = stack.pop_all()
    return Workers(tuple(workers), tuple(descriptions), closing.close)


def _serve(
    connection: Connection[Any, Any],
    load: Callable[[], tuple[Callable[[Sequence[Any]], Sequence[Any]], Any]],
) -> None:
    # Ctrl-C reaches the whole group: the service ends this process when it has drained.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        run, description = load()
    except RaglanError as error:
        connection.send(error)
        return
    connection.send(description)
    while True:
        try:
            batch = connection.recv()
        except EOFError:
            return
        try:
            connection.send(run(batch))
        except DeviceLost:
            return
        except BatchTooLarge as error:
            connection.send(error)
        except Exception as error:  # of this batch alone
            log.exception("a batch failed", items=len(batch))
            connection.send(RuntimeError(f"{type(error).__name__} in a worker"))
