"""The span of one call of the engine behind a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind
from raglan.telemetry import semconv, tracing


def engine_span(
    store: str, operation: str, collection: str, asked: Mapping[str, Any]
) -> tracing.span:
    """A client span; enter it around the call.

    Args:
        store: the setting that chooses the store.
        operation: "index.<what>".
        collection: the collection that is read or written.
        asked: further attributes.
    """
    known = {
        semconv.DB_SYSTEM: store,
        semconv.DB_OPERATION: operation.removeprefix("index."),
        semconv.COLLECTION: collection,
    }
    return tracing.span(operation, known | dict(asked), kind=SpanKind.CLIENT)
