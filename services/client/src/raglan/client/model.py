"""What all objects of the REST API have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """An object of a reply; it cannot be changed."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
