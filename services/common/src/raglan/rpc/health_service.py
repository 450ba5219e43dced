"""`grpc.health.v1`: health of this process, by Check or Watch.

The servicer of grpcio-health-checking forgets every watcher of a name when one of them leaves, so
that with two gateways the restart of one makes the other deaf to NOT_SERVING. It also has no end:
an open watch would hold up a stop for the whole grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

NAME: Final = "grpc.health.v1.Health"

LIVE: Final = "live"
"""Name under which a process is SERVING as long as restarting it would mend nothing: also while it
loads, waits for something else or drains. NOT_SERVING when its work makes no progress."""

_Response = health_pb2.HealthCheckResponse


def name_of(target: str) -> str:
    """The full name of a service: "raglan.v1.EmbedderService" for "embedder"."""
    return f"raglan.v1.{target.capitalize()}Service"


def short_name(name: str) -> str:
    """The opposite of `name_of`."""
    return name.rpartition(".")[2].removesuffix("Service").lower()


class HealthService(health_pb2_grpc.HealthServicer):
    """Readiness of all `names`, NOT_SERVING until it is set, and liveness, SERVING until then."""

    def __init__(self, names: Iterable[str]) -> None:
        self._statuses: dict[str, Any] = dict.fromkeys(names, _Response.NOT_SERVING)
        self._statuses[LIVE] = _Response.SERVING
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, *, serving: bool, live: bool = True) -> None:
        """Tell everyone who asks or watches."""
        for name in self._statuses:
            healthy = live if name == LIVE else serving
            self._statuses[name] = _Response.SERVING if healthy else _Response.NOT_SERVING
        self._tell()

    def end(self) -> None:
        """End every watch: what was watched is about to be gone."""
        self._ended = True
        self._tell()

    async def Check(self, request: Any, context: Any) -> Any:
        """The status now."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no {request.service!r:.100}.")
        return _Response(status=self._statuses[request.service])

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The status now and at each change, until the end."""
        sent = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != sent:
                sent = status
                yield _Response(status=status)
            if self._ended:  # only now: the last status is sent too
                break
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The service is shutting down.")

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
