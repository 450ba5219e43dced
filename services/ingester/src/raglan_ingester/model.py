"""The tables: jobs, their items, and the current documents.

A change here needs a revision in `migrations/versions`.

A job's items are what was submitted; a document is what is stored and searchable. They are apart
so that a new version of a document replaces the old one only when it is ready. `Document.job_id`
is the claim: only the job that submitted the document last may write it, so a document deleted or
submitted anew while it is being ingested can neither reappear nor go back in time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from raglan.identifiers import MAX_DOCUMENT_ID_CHARS
from raglan.tenancy import MAX_QUALIFIED_CHARS
from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ATTEMPTS: Final = 5
"""Refusals by the index after which the labels of a document are set aside."""


class JobState(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True once the job will not run again by itself."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobKind(StrEnum):
    """Work of a job."""

    INGEST = "ingest"
    DELETE = "delete"
    TAG = "tag"


class ItemState(StrEnum):
    """State of a document within a job."""

    QUEUED = "queued"
    DONE = "done"
    UNCHANGED = "unchanged"
    """The same bytes, title, metadata, chunking and model are in the index already."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    """Deleted, or submitted anew by a later job, before it was indexed."""


class DocumentState(StrEnum):
    """State of a stored document."""

    QUEUED = "queued"
    READY = "ready"
    FAILED = "failed"


class Base(DeclarativeBase):
    """Declarative base of the tables."""

    type_annotation_map = {int: BigInteger, str: Text}  # noqa: RUF012 - SQLAlchemy's protocol


class Job(Base):
    """One submission of documents."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), index=True)
    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    kind: Mapped[str] = mapped_column(String(16), default=JobKind.INGEST)
    context: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    """Of a job with contextual chunks: `raglan_ingester.contexts.Cost`."""
    change: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Of a job that changes documents by a filter: `raglan_ingester.changes.Change`."""
    attempt: Mapped[int] = mapped_column(default=1)
    """Counts up with each retry: every attempt is a workflow of its own."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    number: Mapped[int] = mapped_column(default=1)
    """Position among the jobs of the collection, in the order in which they were recorded."""
    stages: Mapped[dict[str, list[int]]] = mapped_column(JSON, default=dict)
    """Stage -> [done, total]."""
    documents: Mapped[int]
    created_ms: Mapped[int] = mapped_column(index=True)
    finished_ms: Mapped[int | None]


class Item(Base):
    """One document of a job."""

    __tablename__ = "job_items"
    __table_args__ = (
        UniqueConstraint("job_id", "document_id"),
        Index("job_items_by_state", "job_id", "state", "ordinal"),
        Index("job_items_by_blob", "sha256"),
    )

    job_id: Mapped[str] = mapped_column(
        String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS))
    state: Mapped[str] = mapped_column(String(16), default=ItemState.QUEUED)
    error: Mapped[str] = mapped_column(default="")
    title: Mapped[str] = mapped_column(default="")
    metadata_json: Mapped[str] = mapped_column(default="{}")
    filename: Mapped[str] = mapped_column(default="")
    media_type: Mapped[str] = mapped_column(default="")
    access: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Access tags that were submitted; None keeps those of a document that exists."""
    edits: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """Changes of metadata and tags that were made after the submission and before it is indexed:
    `raglan_ingester.labels.LabelChange`, in their order."""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    chunks: Mapped[int] = mapped_column(default=0)


class JobTrace(Base):
    """W3C `traceparent`s: whose request a job was, and which run worked on it last."""

    __tablename__ = "job_traces"

    job_id: Mapped[str] = mapped_column(
        String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    request: Mapped[str] = mapped_column(String(64))
    last_run: Mapped[str] = mapped_column(String(64), default="")
    last_attempt: Mapped[int] = mapped_column(default=0)


class Worker(Base):
    """A process that runs jobs, and a counter that moves as long as it lives."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    beats: Mapped[int]


class Document(Base):
    """The current version of a document."""

    __tablename__ = "documents"
    __table_args__ = (Index("documents_by_blob", "sha256"),)

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default=DocumentState.QUEUED)
    error: Mapped[str] = mapped_column(default="")
    title: Mapped[str] = mapped_column(default="")
    text: Mapped[str] = mapped_column(default="", deferred=True)
    metadata_json: Mapped[str] = mapped_column(default="{}")
    filename: Mapped[str] = mapped_column(default="")
    media_type: Mapped[str] = mapped_column(default="")
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    chunks: Mapped[int] = mapped_column(default=0)
    fingerprint: Mapped[str] = mapped_column(String(64), default="")
    """Of everything that decides the chunks and their vectors; equal means nothing to do."""
    access: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Tags of which a caller must hold one to reach it; none for every caller."""
    edited_ms: Mapped[int] = mapped_column(default=0)
    """When metadata or tags were last changed without a submission; it rises with each change. 0
    once a later submission has replaced them."""
    submission: Mapped[int] = mapped_column(default=0)
    """`Job.number` of the job that submitted it last; a repair is no submission."""
    created_ms: Mapped[int]
    version: Mapped[int] = mapped_column(default=0)
    """Number of the present version, from 1; 0 where the collection keeps no versions."""
    valid_from_ms: Mapped[int] = mapped_column(default=0)
    """When the present version took the place of the one before."""


class EarlierVersion(Base):
    """A version of a document that another one has replaced."""

    __tablename__ = "document_versions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
        Index("document_versions_by_expiry", "expires_ms"),
    )

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    valid_from_ms: Mapped[int]
    valid_to_ms: Mapped[int]
    expires_ms: Mapped[int | None]
    """When it is removed; None if it is kept until others take its place."""
    title: Mapped[str] = mapped_column(default="")
    text: Mapped[str] = mapped_column(default="", deferred=True)
    metadata_json: Mapped[str] = mapped_column(default="{}")
    filename: Mapped[str] = mapped_column(default="")
    media_type: Mapped[str] = mapped_column(default="")
    sha256: Mapped[str] = mapped_column(String(64))
    """Of its bytes, which are not kept."""
    size_bytes: Mapped[int]
    chunks: Mapped[int]
    fingerprint: Mapped[str] = mapped_column(String(64))
    access: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Its tags when it was replaced; a caller needs one of these and one of the document's."""
    language: Mapped[str] = mapped_column(String(16), default="")


class ChunkContext(Base):
    """A sentence by which a language model situated a chunk in its document."""

    __tablename__ = "chunk_contexts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
    )

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Digest of what the model was shown."""
    sentence: Mapped[str]


class DocumentStructure(Base):
    """Results of parsing besides the text."""

    __tablename__ = "document_structures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["collection", "document_id"],
            ["documents.collection", "documents.id"],
            ondelete="CASCADE",
        ),
    )

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    language: Mapped[str] = mapped_column(String(16), default="")
    """ISO 639-1; empty where it is unknown."""
    warnings: Mapped[list[str]] = mapped_column(JSON, default=list)
    structure: Mapped[bytes] = mapped_column(LargeBinary, default=b"", deferred=True)
    """See `raglan.blocks.to_bytes`."""


class JobWarning(Base):
    """A sentence that the owner of a job should read, about one document or about all of them."""

    __tablename__ = "job_warnings"

    job_id: Mapped[str] = mapped_column(
        String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    """Empty for a warning about the job as a whole."""
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    message: Mapped[str]


class IndexRevision(Base):
    """The newest revision of a collection that the retriever told after a change."""

    __tablename__ = "index_revisions"

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    revision: Mapped[int]


class UnfinishedDeletion(Base):
    """A deleted document whose chunks the index may still hold."""

    __tablename__ = "unfinished_deletions"

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)


class UnfinishedLabel(Base):
    """A document whose metadata or access tags the index may hold as they were before."""

    __tablename__ = "unfinished_labels"

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """Times that the index has refused them."""
    error: Mapped[str] = mapped_column(default="")
    """Reason of the last refusal."""


class JobCounter(Base):
    """`Job.number` of the newest job of a collection."""

    __tablename__ = "job_counters"

    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    number: Mapped[int]


class Deployment(Base):
    """Names the database; one row."""

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)


class Restore(Base):
    """A restore that has begun and not ended; one row at most."""

    __tablename__ = "restores"

    backup_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    units: Mapped[int]
    """Units of the backup that are restored; 0 until what was there before is gone."""
    began_ms: Mapped[int]


class Source(Base):
    """State of a configured source."""

    __tablename__ = "sources"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(256), default="")
    """The worker that syncs it; empty between two syncs."""
    settings: Mapped[str] = mapped_column(String(64), default="")
    """Digest of the settings that the last sync began with."""
    cursor: Mapped[str] = mapped_column(default="")
    """The reader's own: equal to the present one means that nothing has changed."""
    is_requested: Mapped[bool] = mapped_column(default=False)
    accepts_deletions: Mapped[bool] = mapped_column(default=False)
    """The next sync deletes everything that is missing, however much that is."""
    next_ms: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    """Syncs that failed since the last one that did not."""
    error: Mapped[str] = mapped_column(default="")
    started_ms: Mapped[int | None]
    finished_ms: Mapped[int | None]
    succeeded_ms: Mapped[int | None]
    counts: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    """Of the last sync that ended: what was listed, added, changed, deleted, skipped, held."""
    skipped: Mapped[list[str]] = mapped_column(JSON, default=list)
    """The first things that the last sync left out, a sentence each."""


class SourceDocument(Base):
    """A document that a source has submitted, or was about to.

    Written before the document is submitted and removed after it is deleted, so that no crash
    leaves a document behind that its source does not know.
    """

    __tablename__ = "source_documents"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    collection: Mapped[str] = mapped_column(String(MAX_QUALIFIED_CHARS), primary_key=True)
    document_id: Mapped[str] = mapped_column(String(MAX_DOCUMENT_ID_CHARS), primary_key=True)
    version: Mapped[str] = mapped_column(default="")
    """As the source tells it without the content; empty until the content was submitted."""
    digest: Mapped[str] = mapped_column(String(64), default="")
    """Of the content that was submitted last, and of the metadata from the source's settings."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Submissions of this version that failed."""
    missing_ms: Mapped[int | None]
    """When it was first missing from the source; None while it is there."""
