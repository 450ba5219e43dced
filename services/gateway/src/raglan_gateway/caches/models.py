"""Identities of the models behind the gateway, which are part of the keys of cached values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.errors import RaglanError
from raglan.v1 import common_pb2

log: Final = structlog.get_logger()

REFRESH_S: Final = 5.0
_SOON_S: Final = 0.25

Describe = Callable[[str], Awaitable[common_pb2.ServiceInfo]]


class ServedModels:
    """The newest `GetInfo` of each service. Make it inside a running event loop; close it.

    A service that is away keeps its identity: answers from before can still be given. A service
    whose model was replaced has its new one `REFRESH_S` later at most.

    Args:
        services: names of their pools.
        describe: asks one replica of a service; may raise RaglanError.
    """

    def __init__(self, services: Collection[str], describe: Describe) -> None:
        self._services = services
        self.known: dict[str, common_pb2.ServiceInfo] = {}
        self._describe = describe
        self._watching = asyncio.create_task(keep_running("watch models", self._watch))

    async def close(self) -> None:
        """Stop asking."""
        self._watching.cancel()
        await asyncio.wait((self._watching,))

    async def refresh(self) -> None:
        """Ask every service once."""
        await asyncio.gather(*(self._refresh(service) for service in self._services))

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S if len(self.known) == len(self._services) else _SOON_S)

    async def _refresh(self, service: str) -> None:
        try:
            self.known[service] = await self._describe(service)
        except RaglanError as error:
            log.debug("a model is not known", service=service, reason=error.message)
