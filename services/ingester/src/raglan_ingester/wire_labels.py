"""Changes of metadata and tags, from the wire, checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from raglan import access_tags
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan.metadata import MAX_BYTES
from raglan.v1 import ingester_pb2

from raglan_ingester.labels import LabelChange

_MAX_CHARS: Final = 6 * MAX_BYTES
"""JSON may spell each byte as an escape of six characters."""


def update_from_proto(request: ingester_pb2.UpdateDocumentRequest) -> LabelChange:
    """Convert a change of one document.

    Raises:
        InvalidInput: it changes nothing, or is not acceptable.
        Forbidden: it gives tags that the caller does not hold.
    """
    if not request.HasField("metadata_json") and not request.HasField("access"):
        raise InvalidInput("The update changes nothing; give metadata, access, or both.")
    return LabelChange(
        metadata=_object(request.metadata_json) if request.HasField("metadata_json") else None,
        replace_metadata=request.replace_metadata,
        access=_given(request.access.tags) if request.HasField("access") else None,
    )


def tagging_from_proto(request: ingester_pb2.ChangeDocumentsRequest) -> LabelChange | None:
    """Convert a change by filter; None deletes.

    Raises:
        InvalidInput: there is no filter, or the change is not acceptable.
        Forbidden: it gives tags that the caller does not hold.
    """
    if not request.HasField("filter"):
        raise InvalidInput("The call has no filter.")
    if not request.HasField("tagging"):
        return None
    tagging = request.tagging
    if not (tagging.metadata_json or tagging.add_access or tagging.remove_access):
        raise InvalidInput("The tagging changes nothing; give metadata, or tags to add or remove.")
    return LabelChange(
        metadata=_object(tagging.metadata_json) if tagging.metadata_json else None,
        add_access=_given(tagging.add_access),
        remove_access=_given(tagging.remove_access),
    )


def _given(tags: Sequence[str]) -> tuple[str, ...]:
    checked = access_tags.check(tags)
    access_tags.require(checked)
    return checked


def _object(text: str) -> dict[str, Any]:
    if len(text) > _MAX_CHARS:
        raise PayloadTooLarge(
            f"The metadata has {len(text):,} characters of JSON; the limit is {MAX_BYTES:,} bytes."
        )
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("The metadata is not a JSON object.")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
