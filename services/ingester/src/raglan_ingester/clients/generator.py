"""Sentences of a language model, through the generator."""

from __future__ import annotations

from typing import Final

from raglan import tenancy
from raglan.deadline import Deadline
from raglan.rpc.pool import EndpointPool
from raglan.v1 import generator_pb2


class GeneratorClient:
    """Client of the generator.

    Args:
        pool: the generators.
        call_s: seconds of a call.
    """

    def __init__(self, pool: EndpointPool, *, call_s: float) -> None:
        self._pool: Final = pool
        self._call_s: Final = call_s

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
