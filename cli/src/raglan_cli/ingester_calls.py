"""The ingester's rpcs for backups, as the commands use them: errors become sentences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Overloaded, RaglanError, Unavailable
from raglan.rpc import client
from raglan.v1 import backup_pb2, common_pb2, ingester_pb2, ingester_pb2_grpc

from raglan_cli.failure import Failure

T = TypeVar("T")

_UNIT_S: Final = 600.0
"""For one unit: the largest document takes this long on a slow disk."""
_TRANSIENT: Final = (Unavailable, Overloaded, DeadlineExceeded)
_PATIENCE_S: Final = 120.0
"""For an ingester that has answered before: long enough for a restart."""

_FIRST_S: Final = 5.0
"""For one that has not: its address may be wrong."""

_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


class IngesterCalls:
    """A connection to one ingester; use it in an `async with` block."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = client.connect(address, target="ingester")
        self._stub: Any = ingester_pb2_grpc.IngesterServiceStub(self._channel)
        self._patience_s = _FIRST_S

    async def __aenter__(self) -> Self:
        """Find out whether it answers. Raises Failure."""
        try:
            await self.patiently(self._ask)
        except BaseException:
            await self._channel.close()
            raise
        self._patience_s = _PATIENCE_S
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()`, again and again while the ingester is away or asks for it.

        Raises:
            Failure: it stays away, or refuses; with its own sentence.
        """
        began, pause_s = time.monotonic(), _PAUSE_S
        while True:
            try:
                return await work()
            except _TRANSIENT as error:
                if time.monotonic() - began > self._patience_s:
                    raise Failure(f"{self._address}: {error.message}") from None
                await asyncio.sleep(max(error.retry_after_s or 0, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except RaglanError as error:
                raise Failure(error.message) from None

    async def _ask(self) -> None:
        deadline = Deadline.after(_FIRST_S)
        info = common_pb2.GetInfoRequest()
        await client.call(self._stub.GetInfo, info, deadline=deadline, to="the ingester")

    async def export(
        self, cursor: str, write: Callable[[backup_pb2.BackupRecord], None]
    ) -> backup_pb2.BackupEnd:
        """Read one unit.

        Raises:
            RaglanError: it did not end.
        """
        replies = client.stream(
            self._stub.Export,
            ingester_pb2.ExportRequest(cursor=cursor),
            deadline=Deadline.after(_UNIT_S),
            to="the ingester",
        )
        async with aclosing(replies):
            async for record in replies:
                write(record)
                if record.HasField("end"):
                    end: backup_pb2.BackupEnd = record.end
                    return end
        raise Unavailable("The ingester ended a unit of the backup early.")

    async def begin(self, backup_id: str, header: backup_pb2.BackupHeader, *, replace: bool) -> int:
        """Begin a restore, or go on; return the number of units that are restored."""
        return await self._progress(
            self._stub.BeginImport,
            ingester_pb2.BeginImportRequest(backup_id=backup_id, header=header, replace=replace),
        )

    async def send(self, requests: AsyncIterator[ingester_pb2.ImportRequest]) -> int:
        """Restore one unit; return the number of units that are restored."""
        return await self._progress(self._stub.Import, requests)

    async def end(self, backup_id: str) -> int:
        """End a restore; return its units, 0 where none had begun."""
        request = ingester_pb2.EndImportRequest(backup_id=backup_id)
        return await self._progress(self._stub.EndImport, request)

    async def _progress(self, method: Any, request: Any) -> int:
        deadline = Deadline.after(_UNIT_S)
        reply = await client.call(method, request, deadline=deadline, to="the ingester")
        return int(reply.units)
