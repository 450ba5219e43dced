"""The metadata of a document: what was submitted with it, and what it says of itself."""

from __future__ import annotations

import json
from typing import Any

from raglan.errors import InvalidInput
from raglan.metadata import check


def merge_metadata(
    submitted_json: str, parsed: dict[str, Any], max_bytes: int
) -> tuple[str, list[str]]:
    """One JSON object of both; what was submitted overrides what the document says.

    Args:
        submitted_json: a JSON object in canonical form.
        parsed: JSON values that the document holds, such as its front matter.
        max_bytes: of the result; beyond it the document's own metadata is left out.

    Returns:
        The object as canonical JSON, and sentences about what was left out.
    """
    if not parsed:
        return submitted_json, []
    merged = parsed | json.loads(submitted_json or "{}")
    try:
        check(merged, max_bytes=max_bytes)
    except InvalidInput as error:
        return submitted_json, [f"The metadata inside the document was left out. {error.message}"]
    return json.dumps(merged, sort_keys=True, separators=(",", ":")), []
