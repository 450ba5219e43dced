"""Error replies of routes, as the OpenAPI document shows them.

Given as `model`, FastAPI would build a validator a status and route: hundreds that nothing uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel


def error_responses(model: type[BaseModel], statuses: Iterable[int]) -> dict[int | str, Any]:
    """Return the `responses` of routes whose errors have the form of `model`.

    `openapi.install` adds the schema of `model` to the document.
    """
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {status: {"content": content} for status in statuses}
