"""Metrics of every process of the mesh, whichever service it is.

Processor time, memory and descriptors (prometheus-client reads them from /proc), which build it is,
how late its event loop is, the GPUs it may use, and what becomes of its spans.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector

import raglan
from raglan.telemetry import gpu, span_metrics
from raglan.telemetry.loop_lag import EVERY_S, LoopLag
from raglan.telemetry.metrics import Durations

STATES: Final = ("starting", "serving", "stalled", "away", "dead", "stopping")
"""Process states; stalled means work without results, as with an engine that hangs, and away that
the server which a process passes its work on to cannot be reached."""


class ProcessMetrics:
    """Registers itself in `registry`; samples the loop between `start` and `stop`.

    Args:
        service: its short name, e.g. "embedder".
        lagged: called with each sample of the loop's lag, in seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        service: str,
        *,
        lagged: Callable[[float], None] | None = None,
        lag_every_s: float = EVERY_S,
    ) -> None:
        ProcessCollector(namespace="raglan", registry=registry)
        build = {"service": service, "version": raglan.__version__}
        Info("raglan_build", "What runs here.", registry=registry).info(
            build | {"python": platform.python_version()}
        )
        gpu.register(registry)
        span_metrics.register(registry)
        self._lag = Durations(
            "raglan_event_loop_lag_seconds",
            "How late the event loop came to a timer: each request waits that long at every turn.",
            (),
            registry,
        )
        self._states = Gauge(
            "raglan_process_state", "1 for the state the process is in.", ["state"],
            registry=registry,
        )  # fmt: skip
        self.becomes("starting")
        self._lagged = lagged
        self._sampling = LoopLag(self._late, every_s=lag_every_s)

    def becomes(self, state: str) -> None:
        """The process is in another of `STATES`."""
        for each in STATES:
            self._states.labels(each).set(each == state)

    def start(self) -> None:
        """Begin, inside the event loop."""
        self._sampling.start()

    async def stop(self) -> None:
        """End."""
        await self._sampling.stop()

    def _late(self, seconds: float) -> None:
        self._lag.observe(seconds)
        if self._lagged is not None:
            self._lagged(seconds)
