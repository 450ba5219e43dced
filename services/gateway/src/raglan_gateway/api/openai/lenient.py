"""Request bodies of APIs whose clients send more than we know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from raglan.identifiers import shortened

from raglan_gateway.api import schemas
from raglan_gateway.api.filters import BoundedFilter
from raglan_gateway.api.preference_schemas import Boost
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import check_encodable
from raglan_gateway.error_envelopes import InvalidParameter

_OFF: Final[tuple[Any, ...]] = (None, False, 0, "", "none", "auto", "default", [], {}, ["text"])
"""Values that ask for nothing."""


T = TypeVar("T")
ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A list that is refused at its first wrong element, whatever follows: a body has many."""


class Lenient(BaseModel):
    """An object whose unknown fields are kept apart: refused, or named in the reply."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    refused: ClassVar[Mapping[str, str]] = {}
    """Fields that would change what the reply is, with what to do instead."""
    accepted: ClassVar[frozenset[str]] = frozenset()
    """Fields that have no effect on an answer, such as hints for billing."""

    @model_validator(mode="wrap")
    @classmethod
    def _check_text(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse what no reply and no record could hold; wrong fields are named first."""
        made = handler(value)
        check_encodable(value)
        return made

    def check_unknown(self) -> list[str]:
        """Return the names of fields that ask for something and are not followed.

        Raises:
            InvalidParameter: a field that is not supported.
        """
        ignored = []
        for name, value in (self.model_extra or {}).items():
            if value in _OFF:
                continue
            if name in self.refused:
                raise InvalidParameter(
                    f"{name} is not supported; {self.refused[name]}.",
                    param=name,
                    code="unsupported_parameter",
                )
            if name not in self.accepted:
                ignored.append(name[:64])
        return ignored[:20]


class QueryOptions(Strict):
    """`raglan` in a request: how to search, as in `/v1/query`."""

    collections: schemas.SearchedCollections | None = None
    top_k: int | None = None
    mode: str | None = None
    rerank: bool | None = None
    min_score: float | None = None
    filter: BoundedFilter | None = None
    boosts: Annotated[list[Boost], Field(max_length=8, fail_fast=True)] | None = None
    diversity: float | None = None
    expand_tokens: int | None = None
    as_of: str | None = None
    timeout_ms: int | None = None


def query_request(
    fields: Mapping[str, Any], options: QueryOptions | None, names: Mapping[str, str]
) -> schemas.QueryRequest:
    """Build the body of the `/v1/query` that a request of another API amounts to.

    Args:
        fields: of the body; None leaves a field out.
        options: the request's own `raglan`.
        names: path of the field in the request, by that in the query.

    Raises:
        InvalidParameter: a value is outside of its limits.
    """
    chosen = options.model_dump(by_alias=True, exclude_none=True) if options else {}
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return schemas.QueryRequest.model_validate(chosen | given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        param = f"raglan.{field}" if field in chosen else names.get(field, field)
        message = problem["msg"].removeprefix("Value error, ")
        value = problem.get("input")
        shown = f" (got {shortened(value)})" if isinstance(value, str) else ""
        raise InvalidParameter(f"{param}: {message}{shown}.", param=param) from None
