"""`/v1/models`: the names that `model` may have."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from raglan.identifiers import shortened

from raglan_gateway.error_envelopes import UnknownModel

DEFAULT: Final = "raglan"


def names() -> tuple[str, ...]:
    """Return the names of models that answer, the default first."""
    return (DEFAULT,)


def check(name: str) -> str:
    """Return `name`, if a model is called so.

    Raises:
        UnknownModel: there is none.
    """
    if name not in names():
        known = ", ".join(names())
        raise UnknownModel(f"There is no model {shortened(name)}; the models are: {known}.")
    return name


def router() -> APIRouter:
    """The routes of models."""
    routes = APIRouter(prefix="/v1/models", include_in_schema=False)

    @routes.get("")
    async def list_models() -> dict[str, Any]:
        """List models."""
        return {"object": "list", "data": [_model(name) for name in names()]}

    @routes.get("/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        """One model."""
        return _model(check(name))

    return routes


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "raglan"}
