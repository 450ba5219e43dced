"""Collection of the spans that the replicas of the mesh have made lately.

Without retries and breakers: a replica that does not answer in time is left out, and no replica
waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from raglan.rpc.endpoint import Endpoint, Reach
from raglan.v1 import traces_pb2, traces_pb2_grpc

log: Final = structlog.get_logger()

ASK_S: Final = 1.0
"""Seconds that one replica may take."""

TRACES_A_CALL: Final = 32
"""Trace ids in one call, so that a reply is read within a few milliseconds."""

_REST_S: Final = 5.0
"""Seconds for which a replica that gave no answer in time is left out."""

_WITHOUT_S: Final = 60.0
"""The same for one that does not know the call."""

_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Reply:
    """Spans that one process returned."""

    data: TracesData
    incomplete: frozenset[bytes]
    """Traces of which it no longer has everything."""


class Collector:
    """Calls all replicas at once. Make it inside a running event loop."""

    def __init__(
        self,
        endpoints: Callable[[], Iterable[Endpoint]],
        *,
        ask_s: float = ASK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Collect from the endpoints that are known at the time.

        Args:
            endpoints: every replica that is known now.
            ask_s: seconds that one replica may take.
            clock: monotonic, in seconds.
        """
        self._endpoints = endpoints
        self._ask_s = ask_s
        self._clock = clock
        self._rest_until: dict[str, float] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def collect(
        self,
        trace_ids: Sequence[bytes],
        take: Callable[[Reply], Awaitable[None]],
        *,
        everyone: bool = False,
    ) -> list[str]:
        """Hand each reply to `take` as it comes; done when all have answered or had their time.

        Args:
            trace_ids: 16 bytes each.
            take: consumes a reply.
            everyone: call those too that lately gave no answer.

        Returns:
            The addresses of those that did not answer, or could not be asked.
        """
        if not trace_ids:
            return []
        endpoints = list(self._endpoints())
        self._forget_but(endpoints)
        now = self._clock()
        asked = [
            endpoint
            for endpoint in endpoints
            if endpoint.reach is not Reach.UNREACHABLE
            and (everyone or self._rest_until.get(endpoint.address, 0) <= now)
        ]
        answered = await asyncio.gather(*(self._ask(each, trace_ids, take) for each in asked))
        heard = {each.address for each, did in zip(asked, answered, strict=True) if did}
        return [each.address for each in endpoints if each.address not in heard]

    async def _ask(
        self,
        endpoint: Endpoint,
        trace_ids: Sequence[bytes],
        take: Callable[[Reply], Awaitable[None]],
    ) -> bool:
        stub: Any = traces_pb2_grpc.TraceServiceStub(endpoint.channel)
        try:
            async with self._at_once, asyncio.timeout(self._ask_s):
                for first in range(0, len(trace_ids), TRACES_A_CALL):
                    some = trace_ids[first : first + TRACES_A_CALL]
                    request = traces_pb2.CollectRequest(trace_ids=some)
                    reply = await stub.Collect(request, timeout=self._ask_s)
                    await take(
                        Reply(TracesData.FromString(reply.spans), frozenset(reply.incomplete))
                    )
        except TimeoutError:
            return self._without_answer(endpoint, _REST_S, "it did not answer in time")
        except grpc.aio.AioRpcError as error:
            knows = error.code() is not grpc.StatusCode.UNIMPLEMENTED
            return self._without_answer(
                endpoint, _REST_S if knows else _WITHOUT_S, error.code().name
            )
        except DecodeError:
            return self._without_answer(endpoint, _WITHOUT_S, "its reply cannot be read")
        self._rest_until.pop(endpoint.address, None)
        return True

    def _without_answer(self, endpoint: Endpoint, rest_s: float, reason: str) -> bool:
        self._rest_until[endpoint.address] = self._clock() + rest_s
        log.debug("a replica's spans are missing", address=endpoint.address, reason=reason)
        return False

    def _forget_but(self, endpoints: Iterable[Endpoint]) -> None:
        known = {endpoint.address for endpoint in endpoints}
        for address in self._rest_until.keys() - known:
            del self._rest_until[address]
