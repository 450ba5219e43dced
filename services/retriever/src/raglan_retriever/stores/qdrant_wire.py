"""Our points, searches and errors in the terms of Qdrant's client, and back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from raglan import deadline
from raglan.errors import (
    Conflict,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    RaglanError,
    StorageFull,
    Unavailable,
)
from raglan.filtering import clauses as filters
from raglan.filtering.clauses import Clause

from raglan_retriever.chunks import NUMBERS, STORED, TERMS, Chunk
from raglan_retriever.stores import qdrant_vectors
from raglan_retriever.stores.store import Hit, LateInteraction, Point, Search

_HELP: Final = ". Help: "
"""In every refusal of strict mode, before the way out."""
_FULL: Final = re.compile(r"\bMax .{1,40} limit of .{1,40} reached")


@contextmanager
def errors(name: str = "") -> Iterator[None]:
    """Translate Qdrant's exceptions."""
    try:
        yield
    except RaglanError:
        raise
    except ResourceExhaustedResponse as error:
        raise Overloaded("Qdrant is busy.", retry_after_s=error.retry_after_s) from None
    except UnexpectedResponse as error:
        if error.status_code == 404:
            raise NotFound(f"There is no collection {name!r}.") from None
        if error.status_code == 409:
            raise Conflict(f"Collection {name!r} exists already.") from None
        if (refused := _refused(error)) is not None:
            raise refused from None
        if error.status_code in (401, 403):
            raise Unavailable(
                "Qdrant refuses the key, or wants one; check RAGLAN_RETRIEVER_QDRANT_API_KEY."
            ) from None
        if (error.status_code or 500) >= 500:
            raise Unavailable(
                f"Qdrant answers with status {error.status_code}.", retry_after_s=1
            ) from None
        raise Internal(f"Qdrant refuses the request with status {error.status_code}.") from error
    except ResponseHandlingException as error:
        raise Unavailable(
            f"Qdrant cannot be reached ({type(error.source).__name__}); check "
            "RAGLAN_RETRIEVER_QDRANT_URL.",
            retry_after_s=1,
        ) from None


def _refused(error: UnexpectedResponse) -> RaglanError | None:
    """Return what a limit of the collection refuses, in Qdrant's words; None for other errors."""
    if error.status_code not in (400, 403):  # by version
        return None
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(error.content)["status"]["error"]
        if _FULL.search(said):
            return StorageFull(f"Qdrant: {said} (RAGLAN_RETRIEVER_QDRANT_STRICT_MODE)")
        if _HELP in said:
            return InvalidInput(
                f"Qdrant's strict mode refuses the request: {said} "
                "(RAGLAN_RETRIEVER_QDRANT_STRICT_MODE)"
            )
    return None


def seconds_left() -> int | None:
    """Timeout for Qdrant, in whole seconds, so that it stops work that nobody waits for."""
    limit = deadline.current()
    return None if limit is None else max(1, math.ceil(limit.remaining_s()))


def point_struct(point: Point) -> models.PointStruct:
    """Return a point in the terms of the client."""
    vectors = qdrant_vectors.of_point(point)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def stored_point(record: models.Record) -> Point:
    """Read a point with its payload and vectors."""
    held: Any = record.vector
    return qdrant_vectors.to_point(str(record.id), record.payload or {}, held)


def request(
    search: Search, where: models.Filter | None, params: models.SearchParams | None
) -> models.QueryRequest:
    """Return one search in the terms of the client.

    Args:
        search: the search.
        where: the filter.
        params: of a dense search.
    """
    return models.QueryRequest(
        **qdrant_vectors.query(search.vector, search.limit, where, params),
        limit=search.limit,
        with_payload=list(STORED) if search.with_chunks else False,
    )


def hit(point: models.ScoredPoint, search: Search) -> Hit:
    """Read a point that a search found."""
    chunk = Chunk.from_payload(point.payload or {}) if search.with_chunks else None
    tokens = len(search.vector.tokens) if isinstance(search.vector, LateInteraction) else 1
    return Hit(str(point.id), point.score / tokens, chunk)


def condition(clause: Clause) -> models.Filter:
    """Return a clause in the terms of the client."""
    match clause:
        case filters.All(clauses):
            return models.Filter(must=[condition(inner) for inner in clauses])
        case filters.Any(clauses):
            return models.Filter(should=[condition(inner) for inner in clauses])
        case filters.Not(inner):
            return models.Filter(must_not=[condition(inner)])
        case filters.Ids(any_of):
            return models.Filter(must=[models.HasIdCondition(has_id=list(any_of))])
        case filters.Terms(any_of):
            match_any = models.MatchAny(any=list(any_of))
            return models.Filter(must=[models.FieldCondition(key=TERMS, match=match_any)])
        case filters.Numbers(key, gt, gte, lt, lte):
            within = models.Range(gt=gt, gte=gte, lt=lt, lte=lte)
            return models.Filter(
                must=[models.FieldCondition(key=f'{NUMBERS}."{key}"', range=within)]
            )
