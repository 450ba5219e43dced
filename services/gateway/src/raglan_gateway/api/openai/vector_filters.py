"""Filters of OpenAI's file search as those of `/v1/query`."""

from __future__ import annotations

from typing import Any, Final

from raglan.identifiers import shortened

from raglan_gateway.api.filters import MAX_DEPTH, MAX_NODES
from raglan_gateway.api.openai.lenient import Lenient
from raglan_gateway.error_envelopes import InvalidParameter

_BOUNDS: Final = ("gt", "gte", "lt", "lte")


class RankingOptions(Lenient):
    """Options of the ranking."""

    score_threshold: float | None = None


def converted(filter_: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the same filter in our form; its values are checked there.

    Args:
        filter_: a comparison, or `and` or `or` of filters.
        where: path of it in the request.

    Raises:
        InvalidParameter: it has another form, or is nested too deep or too large.
    """
    return _converted(filter_, where, 1, [MAX_NODES])


def _converted(filter_: Any, where: str, depth: int, left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        raise InvalidParameter(
            f"{where} is nested more than {MAX_DEPTH} deep, or has more than {MAX_NODES} parts, "
            "the limits.",
            param=where,
        )
    if not isinstance(filter_, dict):
        raise InvalidParameter(f"{where} is no object.", param=where)
    kind = filter_.get("type")
    if kind in ("and", "or"):
        parts = filter_.get("filters")
        if not isinstance(parts, list) or not parts:
            raise InvalidParameter(f"{where}.filters is no list, or empty.", param=where)
        return {
            kind: [
                _converted(part, f"{where}.filters[{number}]", depth + 1, left)
                for number, part in enumerate(parts)
            ]
        }
    return _comparison(kind, filter_.get("key"), filter_.get("value"), where)


def _comparison(kind: Any, key: Any, value: Any, where: str) -> dict[str, Any]:
    if kind in ("eq", "ne"):
        return {kind: {"field": key, "value": value}}
    if kind in _BOUNDS:
        return {"range": {"field": key, kind: value}}
    if kind == "in":
        return {"in": {"field": key, "values": value}}
    if kind == "nin":
        return {"not": {"in": {"field": key, "values": value}}}
    shown = shortened(kind) if isinstance(kind, str) else repr(kind)[:40]
    raise InvalidParameter(
        f"{where}.type is {shown}; it is one of and, or, eq, ne, gt, gte, lt, lte, in, nin.",
        param=where,
    )
