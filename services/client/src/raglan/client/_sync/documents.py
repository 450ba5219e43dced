"""The part of the client that works on documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raglan.client import models
from raglan.client._sync.connection import Connection
from raglan.client.transport import Deadline, documents_path, given, read_as, segment
from raglan.client.uploads import File, OnProgress, Upload


class Documents(Connection):
    """Adds, lists, changes and deletes documents."""

    def add_documents(
        self,
        collection: str,
        documents: Sequence[models.NewDocument | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
    ) -> str:
        """Add documents given as text; returns the id of the job that ingests them.

        A document of the same id is replaced. Await the job with `wait_for_job`.
        """
        read = [read_as(models.NewDocument, document) for document in documents]
        accepted = self.request(
            "POST",
            documents_path(collection),
            json={"documents": [document.model_dump() for document in read]},
            idempotent=True,
            deadline=Deadline(timeout_s or self.timeout_s),
        )
        return read_as(models.Accepted, accepted).job_id

    def upload_files(
        self,
        collection: str,
        files: Sequence[File],
        *,
        metadata: Mapping[str, Any] | None = None,
        access: Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float = 3600.0,
    ) -> str:
        """Upload files in one request; returns the id of the job that ingests them.

        Args:
            collection: that takes them.
            files: paths, or (name, content) pairs; the name is the document's id.
            metadata: kept with each of them.
            access: tags of each, of which a caller must hold one to find it.
            on_progress: called with (bytes sent, bytes in all) while they are sent.
            timeout_s: of the upload.
        """
        path, deadline = documents_path(collection), Deadline(timeout_s)
        with Upload(self._http.base_url, files, metadata, access, on_progress) as upload:
            for attempt in self._attempts(deadline, True, None):
                with attempt:
                    accepted = self._request_once(
                        "POST", path, deadline, content=upload.pieces(), headers=upload.headers
                    )
        return read_as(models.Accepted, accepted).job_id

    def preview_chunks(
        self,
        file: File,
        *,
        collection: str | None = None,
        strategy: str | None = None,
        max_chars: int | None = None,
        overlap_chars: int | None = None,
        limit: int = 100,
        timeout_s: float = 600.0,
    ) -> models.ChunkPreview:
        """Cut a file into chunks without storing anything.

        Args:
            file: a path, or a (name, content) pair.
            collection: whose settings hold where the others are not given.
            strategy: such as `structure` or `sentences`.
            max_chars: of a chunk.
            overlap_chars: of a chunk with the one before it.
            limit: chunks in the reply.
            timeout_s: of the upload and the reply.
        """
        deadline = Deadline(timeout_s)
        params = given(
            collection=collection, strategy=strategy, max_chars=max_chars,
            overlap_chars=overlap_chars, limit=limit,
        )  # fmt: skip
        with Upload(self._http.base_url, [file], None, None, None) as upload:
            for attempt in self._attempts(deadline, True, None):
                with attempt:
                    found = self._request_once(
                        "POST",
                        "/v1/chunks",
                        deadline,
                        params=params,
                        content=upload.pieces(),
                        headers=upload.headers,
                    )
        return read_as(models.ChunkPreview, found)

    def add_urls(
        self,
        collection: str,
        urls: Sequence[str],
        *,
        metadata: Mapping[str, Any] | None = None,
        timeout_s: float = 600.0,
    ) -> str:
        """Have the gateway fetch documents, 20 at most; returns the id of the job.

        Args:
            collection: that takes them.
            urls: of hosts that the gateway may fetch from.
            metadata: kept with each document, besides its `url`.
            timeout_s: of all of them.
        """
        accepted = self.request(
            "POST",
            f"{documents_path(collection)}/urls",
            json={"urls": list(urls), **given(metadata=metadata)},
            idempotent=True,
            deadline=Deadline(timeout_s),
        )
        return read_as(models.Accepted, accepted).job_id

    def iter_documents(
        self,
        collection: str,
        *,
        page_size: int = 100,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Iterator[models.DocumentSummary]:
        """Iterate over the documents of a collection, by id; over those that pass a filter."""
        matching = {"filter": json.dumps(filter)} if filter else {}
        after: str | None = ""
        while after is not None:
            page = read_as(
                models.Documents,
                self.request(
                    "GET",
                    documents_path(collection),
                    params={"limit": page_size, "after": after, **matching},
                ),
            )
            for document in page.documents:
                yield document
            after = page.next_after

    def get_document(
        self, collection: str, document_id: str, *, version: int | None = None
    ) -> models.Document:
        """Return a document with its stored text and its chunks; of the present version or one."""
        found = self.request(
            "GET",
            f"{documents_path(collection)}/{segment(document_id)}",
            params=given(version=version),
        )
        return read_as(models.Document, found)

    def list_versions(self, collection: str, document_id: str) -> list[models.DocumentSummary]:
        """List the versions of a document that are kept, the newest first, without their texts."""
        path = f"/v1/collections/{segment(collection)}/versions/{segment(document_id)}"
        return read_as(models.DocumentVersions, self.request("GET", path)).versions

    def delete_documents(
        self, collection: str, document_ids: Sequence[str]
    ) -> models.DeletedDocuments:
        """Delete documents, 1,000 at most; those that do not exist are named in the reply."""
        gone = self.request(
            "POST",
            f"{documents_path(collection)}/delete",
            json={"ids": list(document_ids)},
            idempotent=True,
        )
        return read_as(models.DeletedDocuments, gone)

    def update_document(
        self,
        collection: str,
        document_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = False,
        access: Sequence[str] | None = None,
    ) -> models.DocumentSummary:
        """Change metadata and access tags of a document; nothing is embedded again.

        Args:
            collection: that it is in.
            document_id: of the document.
            metadata: fields to set; `None` as a value removes a field.
            replace: whether they take the place of all present ones.
            access: the new tags, as of `upload_files`; `[]` opens it to every caller.
        """
        path = f"{documents_path(collection)}/{segment(document_id)}"
        body = given(metadata=metadata, access=access, mode="replace" if replace else "merge")
        found = self.request("PATCH", path, json=body, idempotent=True)
        return read_as(models.DocumentSummary, found)

    def delete_by_filter(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        dry_run: bool = False,
        allow_all: bool = False,
    ) -> models.ChangedDocuments:
        """Delete every document that passes a filter, as a job; or only count them."""
        body = {"filter": dict(filter), "dry_run": dry_run, "all": allow_all}
        done = self.request("POST", f"{documents_path(collection)}/delete", json=body)
        return read_as(models.ChangedDocuments, done)

    def tag_documents(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        metadata: Mapping[str, Any] | None = None,
        add_access: Sequence[str] = (),
        remove_access: Sequence[str] = (),
        dry_run: bool = False,
        allow_all: bool = False,
    ) -> models.ChangedDocuments:
        """Change metadata and tags of every document that passes a filter, as a job."""
        body = {
            "filter": dict(filter), "dry_run": dry_run, "all": allow_all,
            "add_access": list(add_access), "remove_access": list(remove_access),
        } | given(metadata=metadata)  # fmt: skip
        done = self.request("POST", f"{documents_path(collection)}/tag", json=body)
        return read_as(models.ChangedDocuments, done)
