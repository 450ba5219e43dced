"""Meshes that rows share, and where their figures go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# At the end: a test of another folder must not find a benchmark's modules before its own.
sys.path.append(str(Path(__file__).parents[2] / "bench"))

from faults.bed import Bed, Setup
from faults.matrix import TABLE
from faults.trial import FORM, FULL, capacity_per_s
from report import Row, publish, rows_of


class Beds:
    """One mesh at a time: the last, for as long as the rows want the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._setup: Setup | None = None
        self._bed: Bed | None = None

    async def of(self, setup: Setup) -> tuple[Bed, float]:
        """A mesh in which all is well, and how much it answers a second just now."""
        if self._bed is None or self._setup != setup:
            self.close()
            number = len(list(self._folder.iterdir()))
            self._bed, self._setup = Bed(self._folder / f"mesh-{number}", setup), setup
            await self._bed.start()
            # Connections, caches, the allocator: what grows at first, or at the first overload, is
            # no leak.
            peak = await capacity_per_s(self._bed, FORM.warm_up_s)
            async with self._bed.load(self._bed.options(seed=0, rate=5 * peak)):
                await asyncio.sleep(FORM.fault_s)
        else:
            await self._bed.repair()
        return self._bed, await capacity_per_s(self._bed, FORM.capacity_s)

    def close(self) -> None:
        """Stop the mesh."""
        if self._bed is not None:
            self._bed.stop()
            self._bed = None


@pytest.fixture(scope="session")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beds]:
    """Meshes, stopped at the end."""
    found = Beds(tmp_path_factory.mktemp("meshes"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, list[Row]]]:
    """Row -> what it found; published in its full form, beside what other rows found before."""
    found: dict[str, list[Row]] = {}
    yield found
    if FULL and found:
        before = {} if len(found) == len(TABLE) else results()
        shown = [row for each in TABLE for row in (before | found).get(each.name, ())]
        publish("faults", shown, measured=[row for rows in found.values() for row in rows])


def results() -> dict[str, list[Row]]:
    """What is published of each row."""
    published: dict[str, list[Row]] = {}
    for row in rows_of("faults"):
        published.setdefault(row.what.partition(": ")[0], []).append(row)
    return published
