"""Choice of the neighbours that are read and joined within a token budget.

Passages of the index as data; no service is called here. A chunk is known by its place: its
collection, the version of its document, and its position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from raglan.chunk_ids import version_of
from raglan.token_estimate import estimate_tokens
from raglan.v1 import common_pb2

Passage = common_pb2.Passage

REACH: Final = 2
"""Neighbours on each side of a passage without a section."""
MAX_CHUNKS: Final = 400
"""Chunks that are read for one query; the best passages come first."""
_SECTION_REACH: Final = 32
"""Chunks of a section on each side of a passage."""


class Place(NamedTuple):
    """Where a chunk stands."""

    collection: str
    version: str
    """Beginning of the ids of its version's chunks."""
    ordinal: int


class Wanted(NamedTuple):
    """A passage and the positions that it may be expanded to, both inclusive."""

    rank: int
    """Index of the passage, from 0."""
    first: int
    last: int


def place_of(passage: Passage) -> Place | None:
    """Return where a passage stands; None where its id does not name its neighbours."""
    version = version_of(passage.chunk_id, passage.ordinal)
    return Place(passage.collection, version, passage.ordinal) if version else None


def plan(passages: Sequence[Passage], *, neighbours: bool) -> list[Wanted]:
    """Return the passages to expand, best first, as many as `MAX_CHUNKS` allows.

    Args:
        passages: best first.
        neighbours: Expand passages without a section too.
    """
    wanted: list[Wanted] = []
    chunks = 0
    for index, passage in enumerate(passages):
        first, last = _range(passage, neighbours=neighbours)
        if first == last or place_of(passage) is None:
            continue
        chunks += last - first + 1
        if chunks > MAX_CHUNKS:
            break
        wanted.append(Wanted(index, first, last))
    return wanted


def _range(passage: Passage, *, neighbours: bool) -> tuple[int, int]:
    at = passage.ordinal
    if passage.HasField("section"):
        section = passage.section
        first, last = min(section.first, at), max(section.last, at)
        return max(first, at - _SECTION_REACH), min(last, at + _SECTION_REACH)
    return (max(0, at - REACH), at + REACH) if neighbours else (at, at)


def choose(
    passages: Sequence[Passage],
    found: Sequence[Passage],
    wanted: Sequence[Wanted],
    *,
    tokens: int,
    neighbours: bool,
) -> list[list[int | Passage]]:
    """Return the texts to make, best first, each as its pieces in the order of the document.

    The best passage is expanded first, on both sides in turn, as far as it may and the budget
    lasts; then the next. What follows each other is one text then, whoever asked for it.

    Args:
        passages: of the result, best first.
        found: other chunks, in any order.
        wanted: of `plan`.
        tokens: budget of the text that is added.
        neighbours: as of `plan`.

    Returns:
        A piece is an index into `passages`, or a chunk of `found`.
    """
    choice = _Choice(passages, found, neighbours=neighbours)
    for each in wanted:
        tokens -= choice.grow(each, tokens)
    return choice.texts()


class _Choice:
    """The chunks that were taken so far."""

    def __init__(
        self, passages: Sequence[Passage], found: Sequence[Passage], *, neighbours: bool
    ) -> None:
        self._passages = passages
        self._neighbours = neighbours
        self._hits: dict[Place, int] = {}
        self._alone: list[int] = []
        for index, passage in enumerate(passages):
            place = place_of(passage)
            if place is None or place in self._hits:
                self._alone.append(index)
            else:
                self._hits[place] = index
        others = ((place_of(each), each) for each in found)
        self._known: dict[Place, Passage] = {place: each for place, each in others if place}
        self._known |= {place: passages[index] for place, index in self._hits.items()}
        self._taken = set(self._hits)

    def grow(self, wanted: Wanted, tokens: int) -> int:
        """Take neighbours of a passage on both sides in turn; returns the tokens that they have."""
        place = place_of(self._passages[wanted.rank])
        assert place is not None
        ends = {1: place, -1: place}
        spent = 0
        while ends:
            for step, end in list(ends.items()):
                after = end._replace(ordinal=end.ordinal + step)
                cost = 0
                reachable = wanted.first <= after.ordinal <= wanted.last and self._joins(end, after)
                if reachable and after not in self._taken:
                    cost = estimate_tokens(self._known[after].text)
                if not reachable or spent + cost > tokens:
                    del ends[step]
                    continue
                spent += cost
                self._taken.add(after)
                ends[step] = after
        return spent

    def texts(self) -> list[list[int | Passage]]:
        """Return the runs of chunks that were taken, in the order of their best passage."""
        ranked: list[tuple[int, list[int | Passage]]] = [(at, [at]) for at in self._alone]
        ranked += [
            (min(self._hits[place] for place in run if place in self._hits), self._pieces(run))
            for run in self._runs()
        ]
        return [pieces for _, pieces in sorted(ranked, key=lambda each: each[0])]

    def _pieces(self, run: Sequence[Place]) -> list[int | Passage]:
        return [self._hits.get(place, self._known[place]) for place in run]

    def _runs(self) -> Iterator[list[Place]]:
        for _, places in groupby(sorted(self._taken), key=lambda place: place[:2]):
            run: list[Place] = []
            for place in places:
                if run and not self._joins(run[-1], place):
                    yield run
                    run = []
                run.append(place)
            yield run

    def _joins(self, one: Place, other: Place) -> bool:
        first, second = sorted((one, other))
        return second.ordinal == first.ordinal + 1 and follows(
            self._known, first, second, neighbours=self._neighbours
        )


def follows(
    known: Mapping[Place, Passage], first: Place, second: Place, *, neighbours: bool
) -> bool:
    """Return whether two chunks of one document can be one text.

    The text between them has to be known, since quotes are the document's own words, and they have
    to be of one section, or stand under the same headings.
    """
    before, after = known.get(first), known.get(second)
    if before is None or after is None or before.document_id != after.document_id:
        return False
    gap = after.start - before.end
    if (
        after.start < before.start
        or after.end < before.end
        or (gap > 0 and gap != len(after.gap_before))
    ):
        return False
    if before.HasField("section") or after.HasField("section"):
        return before.section == after.section
    if not neighbours:
        return False
    # A chunk that begins inside a table or a list has one heading more.
    paths = zip(before.heading_path, after.heading_path, strict=False)
    return all(one == other for one, other in paths)
