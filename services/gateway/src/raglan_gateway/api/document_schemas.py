"""Bodies and replies of the routes that change stored documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raglan_gateway.api.filters import BoundedFilter
from raglan_gateway.api.schemas import AccessTags, Deleted, Described, DocumentSummary, StoredId
from raglan_gateway.api.strict import Strict


class DocumentVersions(Described):
    """Versions of a document, the newest first; none where the collection keeps none."""

    versions: list[DocumentSummary]


class DocumentUpdate(Strict):
    """A change of a document's metadata, its access tags, or both. Nothing is embedded again."""

    metadata: dict[str, Any] | None = None
    """Fields to set. `null` removes a field, and objects are merged (RFC 7396)."""
    mode: Literal["merge", "replace"] = "merge"
    """`replace` puts `metadata` in the place of the present ones."""
    access: AccessTags | None = None
    """The new tags, of which a caller must hold one to find it; `[]` opens it to every caller."""

    @model_validator(mode="after")
    def _not_empty(self) -> DocumentUpdate:
        if self.metadata is None and self.access is None:
            raise ValueError("an update needs metadata, access, or both")
        return self


class FilterChange(Strict):
    """Documents by a filter."""

    filter: BoundedFilter | None = None
    """Of the documents, in the language of searches."""
    dry_run: bool = False
    """Count the documents that match `filter`, and change none."""
    all: bool = False
    """Allow a `filter` that matches every document, which is refused otherwise."""


class DocumentDeletion(FilterChange):
    """Documents to delete: by `ids` at once, or by `filter` as a job."""

    ids: Annotated[list[StoredId], Field(min_length=1, max_length=1_000, fail_fast=True)] | None = (
        None
    )
    """In a body, because clients and proxies rewrite what a path holds."""

    @model_validator(mode="after")
    def _one_of_both(self) -> DocumentDeletion:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("a deletion needs ids or filter, one of the two")
        return self


class DocumentTagging(FilterChange):
    """A change of metadata and access tags of every document that matches `filter`, as a job."""

    metadata: dict[str, Any] | None = None
    """Fields to set; `null` removes a field, and objects are merged (RFC 7396)."""
    add_access: AccessTags = Field(default_factory=list)
    """Tags to add."""
    remove_access: AccessTags = Field(default_factory=list)
    """Tags to remove; a document without tags is open to every caller."""

    @model_validator(mode="after")
    def _not_empty(self) -> DocumentTagging:
        if self.filter is None:
            raise ValueError("a tagging needs a filter")
        if self.metadata is None and not self.add_access and not self.remove_access:
            raise ValueError("a tagging needs metadata, add_access or remove_access")
        return self


class DeletedDocuments(Deleted):
    """Result of deleting several documents: chunks deleted, and ids that were not found."""

    missing_ids: list[str]


class ChangedDocuments(Described):
    """Documents that match a filter, and the job that deletes or tags them."""

    matches: int
    """Documents that match, of those looked at."""
    is_exact: bool
    """True if every document was looked at; else there may be more, which the job takes too."""
    document_ids: list[str]
    """The first ones."""
    job_id: str | None
    """Null in a dry run, and where nothing matches."""
