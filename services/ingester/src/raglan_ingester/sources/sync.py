"""One sync of one source: what differs is submitted or deleted, and recorded step by step.

A sync that is interrupted is begun anew and finds what is left to do by itself: a document's
version is recorded once its job is, and a document is known to its source from before it is
submitted until after it is deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from raglan.database import now_ms
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, NotFound, Unavailable
from raglan.identifiers import check_document_id, shortened

from raglan_ingester.model import DocumentState, Job, JobState, Source
from raglan_ingester.sources.config import AnySource, metadata_of
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Reader,
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    Unchanged,
)
from raglan_ingester.sources.store import Known, Lease, Row, SourceStore
from raglan_ingester.submission import DocumentStart, JobStart, Part

_BATCH_DOCUMENTS: Final = 100
_BATCH_BYTES: Final = 8 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_JOBS_IN_FLIGHT: Final = 2
_JOB_S: Final = 3600.0
_POLL_S: Final = 0.2
_DELETE_AT_ONCE: Final = 500
_DELETE_S: Final = 120.0
_ATTEMPTS: Final = 3
"""Submissions of one version of a document that fails."""
_FEW: Final = 10
"""So many missing documents are deleted at once, whatever share of the source they are."""
_TITLE_CHARS: Final = 1000
_MAX_NAMED: Final = 3
"""Parts of a source that could not be read, and that its error names."""

FAILED: Final = DocumentState.FAILED.value


class Submitter(Protocol):
    """Receives jobs."""

    async def receive(self, parts: AsyncIterator[Part]) -> Job:
        """See `Intake.receive`."""
        ...


class Deleter(Protocol):
    """Deletes documents."""

    async def delete_batch(
        self, collection: str, document_ids: Sequence[str], deadline: Deadline
    ) -> tuple[int, list[str]]:
        """See `Library.delete_batch`."""
        ...


class Jobs(Protocol):
    """Looks jobs up."""

    async def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The parts of the ingester that a sync works with.

    Args:
        started: runs a job that was received.
        max_bytes: of one document.
    """

    store: SourceStore
    intake: Submitter
    started: Callable[[Job], Awaitable[None]]
    jobs: Jobs
    library: Deleter
    max_bytes: int


@dataclass(slots=True)
class Report:
    """Results of a sync."""

    cursor: str = ""
    error: str = ""
    """Parts of the source that could not be read, while the others were synced."""
    listed: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    held: int = 0
    """Missing documents that are kept for now."""
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def counts(self) -> dict[str, int]:
        """By name."""
        names = ("listed", "added", "changed", "deleted", "held")
        return {name: getattr(self, name) for name in names} | {"skipped": self.skipped.count}


@dataclass(frozen=True, slots=True)
class _Document:
    """A document that is to be submitted."""

    id: str
    content: Content
    metadata_json: str
    row: Row


class Sync:
    """Syncs one source once."""

    def __init__(
        self, ports: Ports, source: AnySource, state: Source, lease: Lease, reader: Reader
    ) -> None:
        self._ports = ports
        self._source = source
        self._state = state
        self._lease = lease
        self._reader = reader
        self._collection = source.qualified_collection
        shared = json.dumps(metadata_of(source), sort_keys=True) + _shown(source.access)
        self._tag = hashlib.sha256(shared.encode()).hexdigest()[:12]
        self._known: dict[str, Known] = {}
        self._gone: list[str] = []
        """Listed documents that were not there, or empty, when they were read."""
        self._jobs: list[str] = []
        self.report = Report()

    async def run(self) -> None:
        """Bring the collection to the state of the source; `report` says what was done.

        Raises:
            RaglanError: the source, the collection or the database is away; what was done is
                recorded.
        """
        known = await self._ports.store.known(self._lease.source)
        self._known, others = await asyncio.to_thread(self._split, known)
        for collection, ids in others.items():
            await self._delete(collection, ids)
        if self._source.purge:
            return
        self._known |= await self._adopted()
        is_settled = await asyncio.to_thread(self._are_settled)
        cursor = self._state.cursor if is_settled else ""
        listing = await self._reader.list_entries(cursor, self.report.skipped)
        if listing is None:
            self.report.cursor, self.report.listed = cursor, len(self._known)
            return
        entries = await asyncio.to_thread(self._by_id, listing)
        await self._submit_changes(entries)
        await self._follow_deletions(entries, listing)
        await self._wait_for_jobs(0)
        self.report.error = " ".join(islice(listing.unread.values(), _MAX_NAMED))
        is_whole = not self.report.held and not listing.unread
        self.report.cursor = listing.cursor if is_whole else ""

    def _split(
        self, known: dict[tuple[str, str], Known]
    ) -> tuple[dict[str, Known], dict[str, list[str]]]:
        """Return documents that stay the source's by id, and the ids of the others by collection.

        The others are in a collection that is no longer the source's; on `purge` all are.
        """
        here: dict[str, Known] = {}
        others: dict[str, list[str]] = {}
        for (collection, id_), each in known.items():
            if collection == self._collection and not self._source.purge:
                here[id_] = each
            else:
                others.setdefault(collection, []).append(id_)
        return here, others

    async def _adopted(self) -> dict[str, Known]:
        """Take up documents that a backup brought back and that the source does not know."""
        found = await self._ports.store.strangers(self._lease.source, self._collection)
        ids = await asyncio.to_thread(self._own, found)
        rows = [Row(id_, "", "", 0) for id_ in ids]
        await self._ports.store.record(self._lease, self._collection, rows)
        return {id_: Known("", "", 0, None, DocumentState.READY) for id_ in ids}

    def _own(self, found: Sequence[tuple[str, str]]) -> list[str]:
        """Return the ids of those documents whose metadata name the source."""
        return [id_ for id_, text in found if json.loads(text).get("source") == self._source.name]

    def _are_settled(self) -> bool:
        return all(self._is_settled(each) for each in self._known.values())

    def _is_settled(self, known: Known) -> bool:
        return bool(known.version and known.state and not self._fails(known)) and (
            known.missing_ms is None
        )

    def _fails(self, known: Known) -> bool:
        return known.state == FAILED and known.attempts < _ATTEMPTS

    def _by_id(self, listing: Listing) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for entry in listing.entries:
            id_ = f"{self._source.name}/{entry.key}"
            try:
                entries[check_document_id(id_)] = entry
            except InvalidInput as error:
                self.report.skipped.add(error.message)
        self.report.listed = len(entries)
        return entries

    # What is new or has changed

    async def _submit_changes(self, entries: dict[str, Entry]) -> None:
        """Submit what differs; what was read before the source fails is submitted as well."""
        batch: list[_Document] = []
        same: list[Row] = []
        failure: SourceUnavailable | None = None
        for id_, entry in await asyncio.to_thread(self._differing, entries):
            try:
                document = await self._read(id_, entry, same)
            except SourceUnavailable as error:
                failure = error
                break
            if len(same) >= _BATCH_DOCUMENTS:
                await self._ports.store.record(self._lease, self._collection, same)
                same.clear()
            if document is not None:
                batch.append(document)
            if len(batch) >= _BATCH_DOCUMENTS or _size(batch) >= _BATCH_BYTES:
                await self._submit(batch)
                batch.clear()
        await self._ports.store.record(self._lease, self._collection, same)
        if batch:
            await self._submit(batch)
        if failure is not None:
            raise failure

    def _differing(self, entries: dict[str, Entry]) -> list[tuple[str, Entry]]:
        return [each for each in entries.items() if self._may_differ(*each)]

    def _may_differ(self, id_: str, entry: Entry) -> bool:
        known = self._known.get(id_)
        if known is None or not known.state or self._fails(known):
            return True
        return not entry.version or known.version != self._version(entry.version)

    def _version(self, version: str) -> str:
        """The version by which a document is recorded; other metadata make another version."""
        return f"{self._tag}:{version}" if version else ""

    def _former(self, id_: str) -> str:
        """The version that is stored; empty where the document has to be read again."""
        known = self._known.get(id_)
        if known is None or not known.state or self._fails(known) or known.missing_ms is not None:
            return ""
        tag, _, version = known.version.partition(":")
        return version if tag == self._tag else ""

    async def _read(self, id_: str, entry: Entry, same: list[Row]) -> _Document | None:
        """Read a document; one that turns out to be the same is added to `same`."""
        try:
            content = await self._reader.read(entry, self._former(id_))
            if isinstance(content, Content) and len(content.data) > self._ports.max_bytes:
                raise SkippedDocumentError(
                    f"{shortened(entry.key)} has more than {self._ports.max_bytes:,} bytes, the "
                    "limit (RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
                )
        except SkippedDocumentError as error:
            self.report.skipped.add(error.message)
            return None
        if isinstance(content, Unchanged):
            return None
        if content is None or not content.data.strip():
            self._gone.append(id_)
            return None
        metadata = {**content.metadata, **metadata_of(self._source)}
        metadata_json = json.dumps(metadata, sort_keys=True)
        shared = metadata_json + _shown(self._source.access)
        digest = await asyncio.to_thread(_digest, content, shared)
        version = self._version(entry.version or content.version)
        known = self._known.get(id_)
        if known is None or known.digest != digest:
            return _Document(id_, content, metadata_json, Row(id_, version, digest, 1))
        if not known.state or self._fails(known):
            row = Row(id_, version, digest, known.attempts + 1)
            return _Document(id_, content, metadata_json, row)
        if version != known.version or known.missing_ms is not None:
            same.append(Row(id_, version, digest, known.attempts))
        return None

    async def _submit(self, batch: Sequence[_Document]) -> None:
        await self._wait_for_jobs(_JOBS_IN_FLIGHT - 1)
        store = self._ports.store
        # Known before it is submitted, so that it is deleted even if this process ends here.
        pending = [Row(each.id, "", "", each.row.attempts - 1) for each in batch]
        await store.record(self._lease, self._collection, pending)
        job = await self._ports.intake.receive(_parts(self._collection, batch, self._source.access))
        await self._ports.started(job)
        await store.record(self._lease, self._collection, [each.row for each in batch])
        self._jobs.append(job.id)
        known = sum(each.id in self._known for each in batch)
        self.report.changed += known
        self.report.added += len(batch) - known

    async def _wait_for_jobs(self, most: int) -> None:
        """Wait until at most `most` jobs of this sync are unfinished."""
        until = time.monotonic() + _JOB_S
        while len(self._jobs) > most:
            for id_ in list(self._jobs):
                try:
                    job = await self._ports.jobs.get(id_)
                except NotFound:
                    self._jobs.remove(id_)
                    continue
                if JobState(job.state).ended:
                    self._jobs.remove(id_)
            if len(self._jobs) > most:
                if time.monotonic() > until:
                    raise Unavailable(
                        f"The job {self._jobs[0]} has not ended within {_JOB_S:g} s; a later sync "
                        "goes on."
                    )
                await asyncio.sleep(_POLL_S)

    # What is missing

    async def _follow_deletions(self, entries: dict[str, Entry], listing: Listing) -> None:
        missing = await asyncio.to_thread(self._missing, entries, listing)
        is_deleted = self._state.accepts_deletions or (
            len(missing) <= max(_FEW, len(self._known) // 2)
        )
        if not is_deleted:
            oldest = now_ms() - self._source.delete_after * 1000
            due = [id_ for id_ in missing if _missing_since(self._known[id_]) <= oldest]
            self.report.held = len(missing) - len(due)
        else:
            due = missing
        had = any(each.missing_ms is not None for each in self._known.values())
        if self.report.held or had:
            await self._ports.store.mark_missing(self._lease, self._collection, missing)
        await self._delete(self._collection, due)

    def _missing(self, entries: dict[str, Entry], listing: Listing) -> list[str]:
        """Return documents that the source does not hold any more."""
        gone = [id_ for id_ in dict.fromkeys(self._gone) if id_ in self._known]
        if not listing.is_complete:
            return gone
        unread = tuple(f"{self._source.name}/{beginning}" for beginning in listing.unread)
        unlisted = (id_ for id_ in self._known if id_ not in entries)
        return [*(id_ for id_ in unlisted if not id_.startswith(unread)), *gone]

    async def _delete(self, collection: str, ids: Sequence[str]) -> None:
        for part in _parts_of(ids, _DELETE_AT_ONCE):
            await self._ports.store.check(self._lease)
            try:
                deadline = Deadline.after(_DELETE_S)
                await self._ports.library.delete_batch(collection, part, deadline)
            except NotFound:  # the collection is gone, and with it what it held
                pass
            await self._ports.store.forget(self._lease, collection, part)
            self.report.deleted += len(part)


def _missing_since(known: Known) -> int:
    return now_ms() if known.missing_ms is None else known.missing_ms


def _size(batch: Sequence[_Document]) -> int:
    return sum(len(each.content.data) for each in batch)


def _shown(access: Sequence[str] | None) -> str:
    return "" if access is None else json.dumps(access)


def _digest(content: Content, shared: str) -> str:
    digest = hashlib.sha256()
    for text in (shared, content.title, content.filename, content.media_type):
        digest.update(f"{len(text)}:{text}".encode(errors="surrogatepass"))
    digest.update(content.data)
    return digest.hexdigest()


async def _parts(
    collection: str, batch: Sequence[_Document], access: Sequence[str] | None
) -> AsyncIterator[Part]:
    yield JobStart(collection)
    for each in batch:
        content = each.content
        yield DocumentStart(
            each.id,
            content.filename,
            content.media_type,
            content.title[:_TITLE_CHARS],
            each.metadata_json,
            access=access,
        )
        for at in range(0, len(content.data), _PIECE_BYTES):
            yield content.data[at : at + _PIECE_BYTES]


def _parts_of(ids: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))
