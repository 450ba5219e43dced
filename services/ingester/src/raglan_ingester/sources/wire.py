"""Sources on the wire."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from raglan import tenancy
from raglan.v1 import ingester_pb2

from raglan_ingester.model import DocumentState, Source
from raglan_ingester.sources.scheduler import SourceView

_FOREIGN_ERROR = "The sources file has an error; its operator sees which one."


def listed(views: Sequence[SourceView], file_error: str) -> ingester_pb2.ListSourcesResponse:
    """Return the reply of ListSources. A tenant does not see the error, which may name others'."""
    shown = _FOREIGN_ERROR if file_error and tenancy.current() else file_error
    return ingester_pb2.ListSourcesResponse(
        sources=[source(view) for view in views], file_error=shown
    )


def source(view: SourceView) -> ingester_pb2.Source:
    """Return a source as callers see it."""
    settings, row = view.settings, view.row
    counts = row.counts if row else {}
    message = ingester_pb2.Source(
        name=settings.name,
        kind=settings.kind,
        collection=settings.collection,
        every_s=settings.every,
        status=_status(view),
        documents=sum(view.totals.values()),
        failed_documents=view.totals.get(DocumentState.FAILED, 0),
        error=row.error if row else "",
        failures=row.failures if row else 0,
        skipped_reasons=row.skipped if row else [],
        listed=counts.get("listed", 0),
        added=counts.get("added", 0),
        changed=counts.get("changed", 0),
        deleted=counts.get("deleted", 0),
        held=counts.get("held", 0),
        skipped=counts.get("skipped", 0),
    )
    if row is not None:
        _set(message.started_at, row.started_ms)
        _set(message.finished_at, row.finished_ms)
        _set(message.succeeded_at, row.succeeded_ms)
        _set(message.next_at, row.next_ms)
    return message


def _set(field: Timestamp, value: int | None) -> None:
    if value:
        field.FromMilliseconds(value)


def _status(view: SourceView) -> ingester_pb2.SourceStatus.ValueType:
    row: Source | None = view.row
    if not view.settings.enabled:
        return ingester_pb2.SOURCE_STATUS_PAUSED
    if row is None or row.is_requested:
        return ingester_pb2.SOURCE_STATUS_DUE
    if row.owner:
        return ingester_pb2.SOURCE_STATUS_SYNCING
    if row.error:
        return ingester_pb2.SOURCE_STATUS_FAILING
    if row.counts.get("held"):
        return ingester_pb2.SOURCE_STATUS_HELD
    return ingester_pb2.SOURCE_STATUS_SYNCED
