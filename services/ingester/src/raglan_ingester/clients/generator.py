"""Sentences of a language model, through the generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from raglan import tenancy
from raglan.deadline import Deadline
from raglan.rpc.pool import EndpointPool
from raglan.v1 import generator_pb2, generator_pb2_grpc


class GeneratorClient:
    """Client of the generator.

    Args:
        addresses: of the generators.
        on_attempt: called with the service and the kind of each attempt.
        call_s: seconds of a call.
    """

    def __init__(
        self, addresses: str, on_attempt: Callable[[str, str], None], *, call_s: float
    ) -> None:
        self._pool: Final = EndpointPool(
            "generator",
            addresses,
            generator_pb2_grpc.GeneratorServiceStub,
            on_attempt=partial(on_attempt, "generator"),
        )
        self._call_s: Final = call_s

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def situate(
        self, title: str, document: str, passage: str
    ) -> generator_pb2.SituateResponse:
        """Return a sentence that situates a passage in its document. Raises RaglanError."""
        request = generator_pb2.SituateRequest(
            title=title, document=document, passage=passage, tenant=tenancy.current()
        )
        reply: generator_pb2.SituateResponse = await self._pool.call(
            "Situate", request, deadline=Deadline.after(self._call_s, is_budget=True), retry=False
        )
        return reply
