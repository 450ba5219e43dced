"""Parameters of the dense vector index: by the size of a collection, recall wanted, and memory.

Larger graphs are searched over quantized vectors, which take a part of the memory; the candidates
are scored again by their original vectors. What was measured for each row: `docs/sizing.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, NamedTuple, get_args

Quantization = Literal["none", "int8", "turbo4"]
State = Literal["scanned", "building", "ready"]
"""Of an index; scanned: there is none, a search compares the query with every chunk."""

BITS: Final[Mapping[Quantization, float]] = {"none": 32, "int8": 8, "turbo4": 4}
"""Of each vector component, in what a search reads first."""

RECALLS: Final = (0.8, 0.999)
"""Lowest and highest recall that can be aimed at."""

_M: Final = 16
_EF_CONSTRUCT: Final = 100
_LINK_BYTES: Final = 3.0
"""An edge of the graph, compressed, in a graph of a million nodes."""

_HYSTERESIS: Final = 1.25
"""A collection on the edge of a row keeps the plan of either side."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters that an index was built with, and those of its searches."""

    m: int = _M
    """Edges a node of the HNSW graph."""

    ef_construct: int = _EF_CONSTRUCT
    """Candidates for the edges of a new node."""

    quantization: Quantization = "none"
    vectors_on_disk: bool = True
    """The original vectors are read from the disk when they are needed, not ahead."""

    payload_on_disk: bool = True
    """As `vectors_on_disk`: texts and metadata."""

    index_on_disk: bool = False
    """The graph and the quantized vectors are read from the disk when they are needed."""

    ef: int = 100
    """Candidates of a search; at least as many as it is asked for."""

    oversampling: float = 1.0
    """Of the candidates by quantized vectors, how many times as many are scored again."""

    @property
    def built(self) -> Plan:
        """The plan without what a search can change by itself."""
        return replace(self, ef=0, oversampling=0)

    @property
    def on_disk(self) -> list[str]:
        """Parts of the collection that are read from the disk when they are needed."""
        parts = {
            "index": self.index_on_disk,
            "vectors": self.vectors_on_disk,
            "payload": self.payload_on_disk,
        }
        return [name for name, is_on_disk in parts.items() if is_on_disk]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan | None:
        """Read a stored plan; None where it holds what only a later version knows."""
        known = {field.name for field in fields(cls)}
        plan = cls(**{name: value for name, value in stored.items() if name in known})
        return plan if plan.quantization in get_args(Quantization) else None


class Row(NamedTuple):
    """Parameters from `chunks` on, for a recall of 0.95."""

    chunks: int
    quantization: Quantization
    ef: int
    oversampling: float


ROWS: Final = (
    Row(0, "int8", 100, 1.0),
    Row(100_000, "int8", 256, 2.0),
    Row(750_000, "int8", 512, 2.0),
    Row(5_000_000, "turbo4", 512, 3.0),
)
"""What searches differ in takes no other index, so that one which grows is not built from nothing
each time; quantized vectors also build it three times as fast."""


class Effort(NamedTuple):
    """More work for a recall up to `recall`."""

    recall: float
    searching: int
    """Times the candidates and the oversampling of the row."""
    building: int
    """Times the edges and the candidates of a new node."""


_EFFORTS: Final = (Effort(0.95, 1, 1), Effort(0.98, 2, 1), Effort(1.0, 4, 2))


@dataclass(frozen=True, slots=True)
class Size:
    """What decides the plan."""

    chunks: int
    dimension: int
    payload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Planner:
    """Chooses plans.

    Args:
        recall: Recall@10 against an exact search that is aimed at, in [0.8, 0.999].
        memory_bytes: Memory that one collection may take for its vectors, graph and texts.
        rows: Parameters by size, the smallest first; the first from 0 chunks on.
    """

    recall: float
    memory_bytes: int
    rows: Sequence[Row] = ROWS

    def plan(self, size: Size, *, recall: float | None = None) -> Plan:
        """Return the plan for a collection of this size.

        Args:
            size: of the collection.
            recall: aimed at for this collection; None for that of all.
        """
        wanted = self.recall if recall is None else recall
        row = next(row for row in reversed(self.rows) if size.chunks >= row.chunks)
        effort = next(effort for effort in _EFFORTS if wanted <= effort.recall)
        plan = Plan(
            m=_M * effort.building,
            ef_construct=_EF_CONSTRUCT * effort.building,
            quantization=row.quantization,
            ef=row.ef * effort.searching,
            oversampling=row.oversampling * effort.searching,
        )
        return self._placed(plan, size)

    def settle(self, held: Plan | None, size: Size, *, recall: float | None = None) -> Plan:
        """Return the plan for a collection with an index of the plan `held`.

        What is right for a little more than its size is right too, so that a collection which
        grows and shrinks by a few chunks keeps its index.
        """
        more = (round(each * _HYSTERESIS) for each in (size.chunks, size.payload_bytes))
        larger = Size(next(more), size.dimension, next(more))
        wanted, other = (self.plan(each, recall=recall) for each in (size, larger))
        return other if held is not None and held.built == other.built else wanted

    def _placed(self, plan: Plan, size: Size) -> Plan:
        """Place what is read most in memory, as far as it fits."""
        left = self.memory_bytes - index_bytes(plan, size)
        if left < 0:
            return replace(plan, index_on_disk=True)
        left -= vector_bytes(size)
        if left < 0:
            return plan
        plan = replace(plan, vectors_on_disk=False)
        return plan if left < size.payload_bytes else replace(plan, payload_on_disk=False)


def vector_bytes(size: Size) -> int:
    """Return the bytes of the original vectors, of four bytes a component."""
    return 4 * size.chunks * size.dimension


def index_bytes(plan: Plan, size: Size) -> int:
    """Return the bytes of the graph and the quantized vectors, as `docs/sizing.md` derives them."""
    graph = size.chunks * plan.m * 2 * _LINK_BYTES
    if plan.quantization == "none":
        return round(graph)
    return round(graph + size.chunks * size.dimension * BITS[plan.quantization] / 8)
