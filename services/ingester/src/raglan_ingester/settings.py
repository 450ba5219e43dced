"""Settings of the ingester; every field is `RAGLAN_INGESTER_<FIELD>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from raglan.database.urls import check_url
from raglan.metadata import MAX_BYTES
from raglan.settings import AddressList, GrpcSettings, default_data_dir

MIB = 1024 * 1024


class IngesterSettings(GrpcSettings, env_prefix="RAGLAN_INGESTER_"):
    """Storage of documents, called services and limits of the ingester."""

    port: int = Field(default=7105, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir() / "ingester")
    """Folder of the documents' bytes, and of the SQLite file unless `database_url` is set."""

    min_free_mb: NonNegativeInt = 256
    """Space, in MB, that uploads leave free on the disk of `data_dir`, for jobs under way: with
    less, uploads are refused with status 507."""

    database_url: SecretStr = SecretStr("")
    """Jobs, documents and workflow state: a SQLAlchemy URL (`postgresql://...`, `sqlite:///...`).
    Empty: `ingester.sqlite` in `data_dir`."""

    database_password: SecretStr = SecretStr("")
    """Password of that database, as a file of its own, say; `database_url` has none then."""

    worker_name: str = ""
    """Name of the worker, different between replicas. Empty: the host name and a number on
    PostgreSQL, "local" on SQLite (one process a file)."""

    worker_lease_s: PositiveFloat = 15
    """Seconds without a sign of life after which the jobs of an ingester move to another."""

    reconcile_every_s: PositiveFloat = 3600
    """Seconds between two comparisons of documents, index and stored bytes."""

    job_retention_days: PositiveFloat = 30
    """Days that an ended job can be looked at; its documents stay."""

    embedder_address: AddressList = "127.0.0.1:7101"
    """The embedder: "host:port", or several IP addresses separated by commas."""

    retriever_address: AddressList = "127.0.0.1:7102"
    """The retriever: "host:port", or several IP addresses separated by commas."""

    generator_address: AddressList = "127.0.0.1:7104"
    """The generator, which situates the chunks of collections with contextual chunks."""

    context_calls_in_flight: PositiveInt = 4
    """Calls of the generator at a time, of all jobs."""

    context_call_s: PositiveFloat = 30.0
    """Seconds that a sentence may take, and that a generator which is away is waited for; after
    that, chunks are embedded without one."""

    context_document_chars: Annotated[int, Field(ge=500, le=200_000)] = 8_000
    """Characters of a document that the model is shown for each chunk; about four make a token."""

    concurrent_jobs: PositiveInt = 2
    """Jobs of one collection that run at once in this process; further ones wait. Jobs of
    different collections take turns at parsers and embedder."""

    max_document_bytes: PositiveInt = 64 * MIB
    """Largest document accepted."""

    max_job_bytes: PositiveInt = 256 * MIB
    """Most bytes in one job."""

    max_documents_per_job: PositiveInt = 10_000
    """Most documents in one job."""

    max_metadata_bytes: int = Field(default=MAX_BYTES, ge=1, le=MAX_BYTES)
    """Largest metadata object of a document, as JSON in UTF-8; the index takes 64 KiB."""

    max_chunks_per_document: PositiveInt = 20_000
    """Most chunks of one document, about 20 MB of text; one that makes more fails alone."""

    max_chunks_per_job: PositiveInt = 200_000
    """Most chunks of one job; the documents beyond it fail."""

    max_changed_documents: PositiveInt = 1_000_000
    """Most documents that one job deletes or tags by a filter; running it again does the rest."""

    parse_workers: PositiveInt = 2
    """Parser processes: documents parsed at the same time."""

    parse_memory_bytes: int = Field(default=1024 * MIB, ge=64 * MIB)
    """Address space of a parser process; a document that needs more fails alone."""

    parse_cpu_s: PositiveInt = 60
    """CPU seconds a document may take to parse; one that needs more fails alone."""

    parse_wall_s: PositiveFloat = 180
    """Seconds on the clock a document may take to parse; one that needs more fails alone."""

    chunk_max_chars: int = Field(default=1200, ge=64)
    """Characters in a chunk at most, where the collection does not say. all-MiniLM-L6-v2 reads 256
    tokens, about 1,200 characters of English."""

    chunk_overlap_chars: NonNegativeInt = 0
    """Characters a chunk repeats of the one before it, where the collection does not say."""

    embed_texts_per_call: PositiveInt = 32
    """Texts in one call of the embedder."""

    embed_calls_in_flight: PositiveInt = 4
    """Calls of the embedder under way at once: enough that it never waits for work. Running jobs
    take turns."""

    outage_patience_s: PositiveFloat = 300
    """Seconds that the embedder or the retriever may be away before documents fail over it."""

    sources_file: Path | None = None
    """YAML file of the sources that documents are read from: folders, repositories, sites. Read at
    the start and when it changes; one with an error leaves the sources as they were."""

    @field_validator("sources_file", mode="before")
    @classmethod
    def _take_empty_as_none(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _check_database_url(self) -> Self:
        # Of the whole, not of the field: what a field refuses is shown.
        check_url(
            "RAGLAN_INGESTER_",
            self.database_url.get_secret_value(),
            self.database_password.get_secret_value(),
        )
        return self
