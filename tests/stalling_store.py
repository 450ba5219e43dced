"""An index of which one collection hangs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from raglan_retriever.stores.edge import EdgeStore
from raglan_retriever.stores.store import Hit


class StallingStore(EdgeStore):
    """The edge store, whose collection `stalled` holds its threads until it is released."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, search_threads=2, max_waiting=50, optimize_after_chunks=10**9)
        self.stalled = ""
        self.released = threading.Event()
        self.stalls_fetch = False

    async def search(self, name: str, *args: Any) -> list[list[Hit]]:
        if name == self.stalled and not self.stalls_fetch:
            await self._reads.run_for(name, self.released.wait)
        return await super().search(name, *args)

    async def fetch(self, name: str, *args: Any) -> Any:
        if name == self.stalled:
            await self._reads.run_for(name, self.released.wait)
        return await super().fetch(name, *args)
