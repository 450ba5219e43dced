"""Order of passages by what a request prefers: values of metadata, recency, diversity."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from raglan import metadata
from raglan.errors import InvalidInput
from raglan.moments import moment_of
from raglan.v1 import common_pb2

_BUCKETS: Final = 4_096
"""Of the vectors of pieces of text."""
_PIECE_BYTES: Final = 6
_COMPARED_CHARS: Final = 8_192
_VALUES: Final = 16
"""Of an array that are looked at."""
_FACTORS: Final = np.array([31**at for at in range(_PIECE_BYTES)], dtype=np.int64)
_DAY_S: Final = 86_400.0

Vectors = NDArray[np.float32]


class Boost(NamedTuple):
    """A preference for passages by a field of their metadata."""

    field: str
    """Path of the field: "a.b" reaches into objects."""
    weight: float
    """1 is worth as much as the way from the last place to the first; below 0 it lowers."""
    value: str = ""
    """Value that the field has, as JSON; empty for a preference by date."""
    half_life_days: float = 0.0
    """Age of the date in the field at which half of the weight is left."""


def ordered(
    passages: Sequence[common_pb2.Passage],
    boosts: Sequence[Boost],
    diversity: float,
    limit: int,
    now: datetime | None = None,
) -> list[common_pb2.Passage]:
    """Return the best `limit` passages by relevance and preferences, exact matches first.

    It takes some milliseconds, and more where passages have large metadata: call it in a thread.

    Args:
        passages: best first.
        boosts: added to the relevance, which falls evenly from 1 (the best) to 0 (the worst).
        diversity: from 0 to 1, the share by which likeness to better passages counts against one
            (maximal marginal relevance: Carbonell and Goldstein, SIGIR 1998). Likeness is the
            cosine of the counts of their pieces of six bytes.
        limit: most passages.
        now: for the age of dates.
    """
    # By place: the reranker's scores do not fall with its order, and those of a search do not
    # compare with them.
    scores = np.linspace(1.0, 0.0, len(passages))
    moment = now or datetime.now(UTC)
    names = {each.field for each in boosts}
    fields = {text: _fields(text, names) for text in {each.metadata_json for each in passages}}
    for at, passage in enumerate(passages):
        values = fields[passage.metadata_json]
        scores[at] += sum(each.weight * _fit(each, values, moment) for each in boosts)
    order = sorted(range(len(passages)), key=lambda at: (not passages[at].exact, -scores[at]))
    if diversity > 0:
        kept = sum(each.exact for each in passages)
        order = order[:kept] + _diverse(order, scores, likeness(passages), kept, diversity, limit)
    return [passages[at] for at in order[:limit]]


def _fields(metadata_json: str, names: Set[str]) -> dict[str, list[metadata.Scalar]]:
    """Return the first values of those fields of the metadata that are named."""
    found: dict[str, list[metadata.Scalar]] = {name: [] for name in names}
    if not names:
        return found
    try:
        for path, value in metadata.leaves(json.loads(metadata_json or "{}")):
            if value is not None and path in names and len(found[path]) < _VALUES:
                found[path].append(value)
    except (ValueError, InvalidInput):  # an earlier version stored what is refused now
        pass
    return found


def _fit(boost: Boost, fields: dict[str, list[metadata.Scalar]], now: datetime) -> float:
    """Return by how much a passage has what is preferred, in [0, 1]."""
    values = fields[boost.field]
    if not boost.half_life_days:
        wanted = json.loads(boost.value)
        return float(any(_is_same(each, wanted) for each in values))
    moments = (moment_of(each) for each in values if isinstance(each, str))
    newest = max((each for each in moments if each is not None), default=None)
    if newest is None:
        return 0.0
    age_days = max(0.0, (now - newest).total_seconds() / _DAY_S)
    return float(0.5 ** (age_days / boost.half_life_days))


def _is_same(one: metadata.Scalar, other: metadata.Scalar) -> bool:
    """Compare as filters do: 1 and 1.0 are the same, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def likeness(passages: Sequence[common_pb2.Passage]) -> Vectors:
    """Return how alike passages are: float32 of shape (passages, passages), from 0 to 1."""
    vectors = _vectors(passages)
    alike: Vectors = vectors @ vectors.T
    return alike


def _vectors(passages: Sequence[common_pb2.Passage]) -> Vectors:
    """Return the pieces of each text as a unit vector: float32 of shape (passages, buckets).

    Pieces of bytes, because words are no units in every script, and a regular expression over a
    hundred passages would hold up the event loop for 50 ms.
    """
    made = np.zeros((len(passages), _BUCKETS), dtype=np.float32)
    for row, passage in zip(made, passages, strict=True):
        data = np.frombuffer(passage.text[:_COMPARED_CHARS].casefold().encode(), dtype=np.uint8)
        if data.size >= _PIECE_BYTES:
            pieces = np.lib.stride_tricks.sliding_window_view(data, _PIECE_BYTES) @ _FACTORS
            row[:] = np.sqrt(np.bincount(pieces % _BUCKETS, minlength=_BUCKETS))
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    unit: Vectors = made / np.maximum(lengths, 1e-9)
    return unit


def _diverse(
    order: Sequence[int],
    scores: NDArray[np.float64],
    alike: Vectors,
    kept: int,
    diversity: float,
    limit: int,
) -> list[int]:
    """Return up to `limit` of `order` after its first `kept`, each unlike those before it."""
    left = list(order[kept:])
    nearest = alike[order[:kept]].max(axis=0, initial=0.0)
    chosen: list[int] = []
    while left and len(chosen) + kept < limit:
        worth = (1 - diversity) * scores[left] - diversity * nearest[left]
        chosen.append(left.pop(int(np.argmax(worth))))
        nearest = np.maximum(nearest, alike[chosen[-1]])
    return chosen
