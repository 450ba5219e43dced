"""Cuts where a text changes its subject, by the vectors of the sentences before and after.

The parser process has no model: it returns the sentences first, and cuts the document in a second
call at the places that are found here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.chunking_strategy import ChunkingStrategy

from raglan_ingester.parsing import CutChunk, CutDocument, Parser, ParseRequest

MAX_UNITS: Final = 5_000
"""Sentences of a document that are embedded; a longer document is cut by sentences."""
_WINDOW: Final = 3
"""Sentences on each side of a place."""
_WINDOW_CHARS: Final = 1_000
_LEAST_CHARS: Final = 200
"""Between two cuts: shorter pieces say little by themselves."""
_DEVIATIONS: Final = 1.0
"""A cut parts its sides by more than the document's mean, by so many standard deviations."""

Embed = Callable[[Sequence[str]], Awaitable[NDArray[Any]]]
"""Vectors of any number of texts, one row each, L2-normalised. Raises RaglanError."""


class SemanticParser:
    """A parser that finds the cuts of the semantic strategy; other requests go on unchanged."""

    def __init__(self, parser: Parser, embed: Embed) -> None:
        self._parser = parser
        self._embed = embed

    async def parse(self, request: ParseRequest) -> CutDocument:
        """Parse and cut a document. Raises Unparsable, and RaglanError of the embedder."""
        if request.strategy != ChunkingStrategy.SEMANTIC:
            return await self._parser.parse(request)
        sizes = replace(request.sizes, max_chunks=MAX_UNITS + 1)
        units = await self._parser.parse(replace(request, sizes=sizes, units=True))
        if len(units.chunks) > MAX_UNITS:
            cut = await self._parser.parse(request)
            cut.warnings.append(
                f"The document has more than {MAX_UNITS:,} sentences, so it was cut by sentences."
            )
            return cut
        windows = _windows(units)
        vectors = await self._embed(windows) if len(windows) > _WINDOW else None
        cuts = [] if vectors is None else find_cuts(units.chunks, vectors)
        return await self._parser.parse(replace(request, cuts=tuple(cuts)))

    async def close(self) -> None:
        """Stop the parser's processes."""
        await self._parser.close()


def _windows(document: CutDocument) -> list[str]:
    """The text of each unit with those after it, `_WINDOW` in all.

    A unit may lie before the one that it follows, as where a heading stands inside a quotation.
    """
    windows = []
    for at, unit in enumerate(document.chunks):
        end = max(each.end for each in document.chunks[at : at + _WINDOW])
        windows.append(document.text[unit.start : end][:_WINDOW_CHARS])
    return windows


def find_cuts(units: Sequence[CutChunk], vectors: NDArray[Any]) -> list[int]:
    """Return the offsets of units with which another subject begins.

    Args:
        units: in order.
        vectors: float array of shape (units, dimension): of each unit with the two after it.
    """
    distances = 1 - np.einsum("ij,ij->i", vectors[:-_WINDOW], vectors[_WINDOW:])
    if not len(distances):
        return []
    least = float(distances.mean() + _DEVIATIONS * distances.std())
    cuts: list[int] = []
    begun = units[0].start
    for at, distance in enumerate(distances):
        around = distances[max(0, at - 1) : at + 2]
        place = units[at + _WINDOW].start
        is_peak = distance > least and distance == around.max()
        if is_peak and place - begun >= _LEAST_CHARS:
            cuts.append(place)
            begun = place
    return cuts
