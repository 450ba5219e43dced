"""Replies of the routes of jobs."""

from __future__ import annotations

from typing import Literal

from raglan_gateway.api.schemas import Described


class Progress(Described):
    """Progress of a stage."""

    done: int
    total: int


class DocumentProblem(Described):
    """A document that failed, and why; or one that its owner should look at."""

    document_id: str
    message: str


class ContextCost(Described):
    """Sentences that a language model wrote for the chunks of a job, and their cost."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    reused: int
    """Sentences that were written before, for the same text."""
    missing: int
    """Chunks that were embedded without one."""


class Job(Described):
    """An ingestion, or a change of documents by a filter."""

    id: str
    collection: str
    kind: Literal["ingest", "delete", "tag"] = "ingest"
    status: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    stages: dict[str, Progress]
    errors: list[DocumentProblem]
    warnings: list[DocumentProblem]
    """The first ones; `warning_count` says how many there are. One without a document is about the
    whole job."""
    warning_count: int
    documents: int
    replaced: int
    """Documents that took the place of an earlier version."""
    unchanged: int
    context: ContextCost | None = None
    """Null in collections without contextual chunks."""
    created_at: str
    finished_at: str | None


class Jobs(Described):
    """Jobs, newest first."""

    jobs: list[Job]
