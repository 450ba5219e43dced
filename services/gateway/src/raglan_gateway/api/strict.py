"""Request bodies that cost little to refuse, whatever they hold.

A list stops at its first bad element and an object at its first unknown field: otherwise an error
for each of a million of them is built on the event loop, for a reply that shows five.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from raglan.identifiers import shortened


class Strict(BaseModel):
    """An object without unknown fields and without conversions: 0 is not false, "10" is not 10."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    unknown_field: ClassVar[str] = "there is no field {name}; the fields are {known}"
    """Error text of a field that the object does not have."""

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in value:
                if key not in known:
                    shown = ", ".join(sorted(known))
                    raise ValueError(
                        cls.unknown_field.format(name=shortened(str(key)), known=shown)
                    )
        return value
