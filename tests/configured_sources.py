"""Sources of a running ingester, with the words that tests use."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from raglan.errors import NotFound
from raglan.v1 import ingester_pb2

SYNCED = ingester_pb2.SOURCE_STATUS_SYNCED
FAILING = ingester_pb2.SOURCE_STATUS_FAILING
HELD = ingester_pb2.SOURCE_STATUS_HELD
PAUSED = ingester_pb2.SOURCE_STATUS_PAUSED


class Sources:
    """Configured sources, with the words that tests use."""

    def __init__(self, file: Path, ingester: Any, folder: Path) -> None:
        self.file, self.ingester, self.folder = file, ingester, folder
        self.name = f"s{time.time_ns()}"

    def configure(self, **changes: Any) -> None:
        entry = {
            "name": self.name,
            "kind": "folder",
            "path": str(self.folder),
            "collection": "default",
            "every": "1d",
        }
        self.write({"sources": [entry | changes]})

    def write(self, document: Any) -> None:
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        self.file.write_text(text)

    async def listed(self) -> Any:
        stub = self.ingester.stub
        return await self.ingester.call(stub.ListSources, ingester_pb2.ListSourcesRequest())

    async def state(self) -> Any:
        return next((s for s in (await self.listed()).sources if s.name == self.name), None)

    async def until(self, *statuses: Any) -> Any:
        async with asyncio.timeout(30):
            while True:
                found = await self.state()
                if found is not None and found.status in statuses:
                    return found
                await asyncio.sleep(0.05)

    async def sync(self, *, accept_deletions: bool = False) -> Any:
        request = ingester_pb2.SyncSourceRequest(
            source=self.name, accept_deletions=accept_deletions
        )
        await self.ingester.call(self.ingester.stub.SyncSource, request)
        return await self.until(SYNCED, FAILING, HELD)

    async def documents(self, collection: str = "default") -> dict[str, str]:
        """Text by path."""
        request = ingester_pb2.ListDocumentsRequest(collection=collection, limit=1000)
        found = await self.ingester.call(self.ingester.stub.ListDocuments, request)
        texts = {}
        for each in found.documents:
            if each.id.startswith(f"{self.name}/"):
                with suppress(NotFound):  # deleted meanwhile
                    text = (await self.ingester.document(each.id, collection)).text
                    texts[each.id.removeprefix(f"{self.name}/")] = text.strip()
        return texts
