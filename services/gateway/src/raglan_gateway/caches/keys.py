"""Keys of cached values: a digest of everything that decides the value.

A key is made from all fields of `Query` but those that are named here, so that a new field takes
part from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

import raglan
from google.protobuf.message import Message
from raglan.cache import digest
from raglan.v1 import common_pb2

from raglan_gateway.query import DEFAULT_GENERATOR, Query

_LAYOUT: Final = "2"
"""Version of the values and keys; another one has other keys."""

OF_THE_REQUEST: Final = frozenset({"priority", "stream", "cache"})
"""Fields that decide when and in which form a reply comes, not what it says."""

OF_THE_ANSWER: Final = OF_THE_REQUEST | {
    *("max_tokens", "sampling", "json_schema", "instructions", "generators", "missing"),
    *("second_try", "second_try_below"),
}
"""Fields that decide nothing about the passages."""

Models = Mapping[str, common_pb2.ServiceInfo]


def embedding(query: Query, models: Models) -> bytes:
    """Key of the query's vector."""
    return digest(
        *(_LAYOUT, "embedding", query.tenant, query.line, *query.further),
        *_identity(models, "embedder"),
    )


def evidence(query: Query, revisions: Mapping[str, int], models: Models, setup: str) -> bytes:
    """Key of the ranked passages.

    Args:
        query: the question.
        revisions: of all its collections.
        models: of the embedder and the reranker.
        setup: settings of the gateway that decide the passages.
    """
    return digest(
        *(_LAYOUT, "evidence", raglan.__version__, setup),
        *_of(query, OF_THE_ANSWER),
        *_revisions(query, revisions),
        *_identity(models, "embedder", "reranker"),
    )


def answer(query: Query, revisions: Mapping[str, int], models: Models, setup: str) -> bytes:
    """Key of the answer; arguments as of `evidence`, with the generator."""
    return digest(
        *(_LAYOUT, "answer", raglan.__version__, setup),
        *_of(query, OF_THE_REQUEST),
        *_revisions(query, revisions),
        *_identity(models, "embedder", "reranker", *generators(query)),
    )


def scope(query: Query, revisions: Mapping[str, int], models: Models, setup: str) -> bytes:
    """Key of all that decides the answer besides the question; arguments as of `answer`."""
    return answer(replace(query, text=""), revisions, models, setup)


def generators(query: Query) -> list[str]:
    """Return the names of the generators' pools whose models may take part in an answer."""
    names = [*(query.generators or (DEFAULT_GENERATOR,))]
    if query.has_strategy and query.rewriter not in names:
        names.append(query.rewriter)
    return ["generator" if name == DEFAULT_GENERATOR else f"generator_{name}" for name in names]


def _of(query: Query, left_out: frozenset[str]) -> Iterator[str]:
    for field in fields(query):
        if field.name not in left_out:
            yield field.name
            yield from _canonical(getattr(query, field.name))


def _canonical(value: Any) -> Iterator[str]:
    """Yield the value as texts, the same for equal values and for no others.

    Raises:
        TypeError: no rule says when two such values are equal.
    """
    match value:
        case None | bool() | int() | float() | str():
            yield f"{type(value).__name__}:{value}"
        case Message():
            yield value.DESCRIPTOR.full_name
            yield value.SerializeToString(deterministic=True).hex()
        case tuple():
            yield f"tuple:{len(value)}"
            for each in value:
                yield from _canonical(each)
        case _:
            raise TypeError(f"a {type(value).__name__} in a Query has no canonical form for a key")


def _revisions(query: Query, revisions: Mapping[str, int]) -> Sequence[str]:
    return [str(revisions[name]) for name in query.collections]


def _identity(models: Models, *services: str) -> Iterator[str]:
    for service in services:
        info = models.get(service)
        yield service
        if info is not None:
            yield from (info.version, info.engine, info.model.id, info.model.revision, info.dtype)
