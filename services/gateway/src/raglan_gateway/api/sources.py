"""`/v1/sources`: the state of configured sources, and a sync on request."""

from __future__ import annotations

from typing import Annotated, Final, Literal, cast

from fastapi import APIRouter, Path, Query
from google.protobuf.timestamp_pb2 import Timestamp
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.identifiers import shortened
from raglan.v1 import ingester_pb2

from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.api.schemas import Described
from raglan_gateway.mesh import Mesh

Status = Literal["due", "syncing", "synced", "failing", "held", "paused"]
SourceName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_PREFIX: Final = "SOURCE_STATUS_"


class SourceCounts(Described):
    """Counts of the last sync that did not fail."""

    listed: int
    added: int
    changed: int
    deleted: int
    held: int
    """Documents that are missing from the source and are kept for now: more than half are missing
    at once. They are deleted after the source's `delete_after`, or by a sync that accepts
    deletions."""
    skipped: int
    """Left out; `skipped_reasons` has the first ones."""


class Source(Described):
    """A place that documents are read from, as the operator configured it."""

    name: str
    kind: str
    collection: str
    status: Status
    """`failing`: the last sync failed, or could not read the parts that `error` names, and is
    repeated at `next_at`; nothing was deleted of what could not be read. `held`: synced, but
    missing documents are kept for now. `paused`: switched off in the file."""
    every_s: int
    documents: int
    """Documents that it has brought."""
    failed_documents: int
    error: str
    failures: int
    """Syncs that failed since the last one that did not."""
    started_at: str | None
    finished_at: str | None
    succeeded_at: str | None
    next_at: str | None
    last_sync: SourceCounts
    skipped_reasons: list[str]


class Sources(Described):
    """The configured sources by name."""

    sources: list[Source]
    file_error: str
    """Error of the sources file, with which the sources are those of before; else empty."""


def router(mesh: Mesh) -> APIRouter:
    """The routes of sources."""
    routes = APIRouter(prefix="/v1/sources", tags=["sources"])

    async def find(name: str = "") -> ingester_pb2.ListSourcesResponse:
        request = ingester_pb2.ListSourcesRequest(source=name)
        found = await mesh.ingester.call("ListSources", request, deadline=Deadline.after(TIMEOUT_S))
        return cast("ingester_pb2.ListSourcesResponse", found)

    async def own(name: str) -> ingester_pb2.Source:
        found = await find(name)
        if not found.sources:
            raise NotFound(f"There is no source {shortened(name)}.")
        return found.sources[0]

    @routes.get("")
    async def list_sources() -> Sources:
        """Sources and the state of each."""
        found = await find()
        return Sources(
            sources=[_source(each) for each in found.sources], file_error=found.file_error
        )

    @routes.get("/{name}")
    async def get_source(name: SourceName) -> Source:
        """One source."""
        return _source(await own(name))

    @routes.post("/{name}/sync", status_code=202)
    async def sync_source(
        name: SourceName,
        accept_deletions: Annotated[
            bool, Query(description="Delete every missing document, however many there are.")
        ] = False,
    ) -> Source:
        """Sync a source now, or once more after the sync that is under way."""
        await own(name)  # of a collection that the caller's key allows
        request = ingester_pb2.SyncSourceRequest(source=name, accept_deletions=accept_deletions)
        reply = await mesh.ingester.call(
            "SyncSource", request, deadline=Deadline.after(TIMEOUT_S), retry=False
        )
        return _source(reply)

    return routes


def _source(found: ingester_pb2.Source) -> Source:
    status = ingester_pb2.SourceStatus.Name(found.status).removeprefix(_PREFIX).lower()
    return Source(
        name=found.name,
        kind=found.kind,
        collection=found.collection,
        status=cast("Status", status),
        every_s=found.every_s,
        documents=found.documents,
        failed_documents=found.failed_documents,
        error=found.error,
        failures=found.failures,
        started_at=_iso(found, "started_at"),
        finished_at=_iso(found, "finished_at"),
        succeeded_at=_iso(found, "succeeded_at"),
        next_at=_iso(found, "next_at"),
        last_sync=SourceCounts(
            listed=found.listed,
            added=found.added,
            changed=found.changed,
            deleted=found.deleted,
            held=found.held,
            skipped=found.skipped,
        ),
        skipped_reasons=list(found.skipped_reasons),
    )


def _iso(
    found: ingester_pb2.Source,
    field: Literal["started_at", "finished_at", "succeeded_at", "next_at"],
) -> str | None:
    if not found.HasField(field):
        return None
    moment: Timestamp = getattr(found, field)
    return moment.ToJsonString()
