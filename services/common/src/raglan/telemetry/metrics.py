"""`/metrics` of a process: its histograms of durations, and its registry over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raglan.errors import Unavailable
from raglan.rpc.addresses import format_address
from raglan.settings import GrpcSettings
from raglan.telemetry import context as request_context

SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0),
)
"""Buckets of every histogram of durations: half a millisecond to two minutes."""

OTHER: Final = "other"
"""The value of a label for everything that is not on a list of known ones."""

EXEMPLAR_EVERY_S: Final = 1.0
"""A bucket shows its latest exemplar only, and is read a few times a minute at most."""

LOOP_ANSWERS_S: Final = 1.0
"""Time limit of a scrape for the event loop, in seconds."""

# Of every counter and histogram a series more, for nothing that Prometheus reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Durations:
    """A histogram of durations that is cheap enough for every call: about 1 us.

    Children are made once for each combination of label values. An exemplar with the trace id of
    the request being served is left in a bucket once a second at most, so that the rare slow one
    has its own and the many fast ones do not pay for theirs. Belongs to one thread.

    Args:
        labels: their names; every value given to `observe` has to come from a fixed list.
    """

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry
    ) -> None:
        self._histogram = Histogram(name, text, labels, buckets=SECONDS, registry=registry)
        self._children: dict[tuple[str, ...], tuple[Histogram, list[float]]] = {}
        if not labels:
            self._children[()] = self._histogram, _no_exemplars()

    def expect(self, *labels: str) -> None:
        """Show the series of these labels already, at 0."""
        self._made(labels)

    def observe(self, seconds: float, *labels: str) -> None:
        """One more took `seconds`; `labels` are values in the order of the names."""
        child, due = self._children.get(labels) or self._made(labels)
        bucket, now = bisect_left(SECONDS, seconds), time.monotonic()
        exemplar = None
        if now >= due[bucket]:
            due[bucket] = now + EXEMPLAR_EVERY_S
            if trace_id := request_context.trace_id():
                exemplar = {"trace_id": trace_id}
        child.observe(seconds, exemplar)

    def _made(self, labels: tuple[str, ...]) -> tuple[Histogram, list[float]]:
        made = self._children[labels] = self._histogram.labels(*labels), _no_exemplars()
        return made


def _no_exemplars() -> list[float]:
    """Next exemplar time of each bucket; the last is the bucket above all bounds."""
    return [0.0] * (len(SECONDS) + 1)


class OnLoop(Collector):
    """Reads what belongs to an event loop, for scrapes that come on threads of their own.

    Make it on that loop. While the loop does not turn there are no such series.
    """

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def collect(self) -> Iterable[Metric]:
        """The families of one scrape."""
        if threading.get_ident() == self._thread:
            return list(self._read())
        if not self._loop.is_running():
            return []
        reading = asyncio.run_coroutine_threadsafe(self._on_loop(), self._loop)
        try:
            return reading.result(LOOP_ANSWERS_S)
        except TimeoutError:
            reading.cancel()
            return []

    async def _on_loop(self) -> list[Metric]:
        return list(self._read())


class Endpoint:
    """Serves a registry from a thread of its own between `start` and `stop`.

    In the text format of Prometheus, or as OpenMetrics, which has the exemplars, where the scrape
    asks for it in its Accept header.

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self.registry = registry
        self.port = port
        """The listening port, once started."""
        self._host = host
        self._server: tuple[WSGIServer, threading.Thread] | None = None

    @classmethod
    def of(cls, settings: GrpcSettings) -> Self:
        """The endpoint of a service, with a registry of its own."""
        return cls(CollectorRegistry(), settings.host, settings.metrics_port)

    def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: the port is taken.
        """
        try:
            self._server = start_http_server(self.port, self._host, self.registry)
        except OSError as error:
            raise Unavailable(
                f"{format_address(self._host, self.port)} cannot be listened on for metrics: "
                f"{error.strerror}"
            ) from error
        self.port = self._server[0].server_port

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join(5)
            self._server = None
