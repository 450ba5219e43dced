"""Base class of the objects of the REST API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """An object of a reply; it cannot be changed."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
