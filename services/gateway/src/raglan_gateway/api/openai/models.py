"""`/v1/models`: the names that `model` may have."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from raglan.identifiers import shortened

from raglan_gateway.api.openai import documented
from raglan_gateway.error_envelopes import UnknownModel
from raglan_gateway.profiles import Profiles

DEFAULT: Final = "raglan"


class Models:
    """Models that answer: the default, and each profile under its name."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def names(self) -> tuple[str, ...]:
        """Return the names of models, the default first."""
        return (DEFAULT, *(name for name in self._profiles.names() if name != DEFAULT))

    def profile(self, name: str) -> str | None:
        """Return the profile that a model stands for; None for the default.

        Raises:
            UnknownModel: there is no such model.
        """
        if name not in self.names():
            known = ", ".join(self.names())
            raise UnknownModel(f"There is no model {shortened(name)}; the models are: {known}.")
        return None if name == DEFAULT else name


def router(models: Models) -> APIRouter:
    """The routes of models."""
    routes = documented.router("/v1/models")

    @routes.get("", **documented.returns(documented.ServedModels))
    async def list_models() -> dict[str, Any]:
        """List models."""
        return {"object": "list", "data": [_model(name) for name in models.names()]}

    @routes.get("/{name:path}", **documented.returns(documented.ServedModel))
    async def get_model(name: str) -> dict[str, Any]:
        """One model."""
        models.profile(name)
        return _model(name)

    return routes


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "raglan"}
