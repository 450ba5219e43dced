"""`/v1/collections/{name}/documents/urls`: documents that the gateway fetches itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter
from pydantic import Field
from raglan.errors import Forbidden, Overloaded
from raglan.url_fetcher import Fetched, UrlFetcher
from raglan.v1 import ingester_pb2

from raglan_gateway.api import schemas
from raglan_gateway.api.documents import PIECE_BYTES, header, metadata_json, submit
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import PlainText
from raglan_gateway.mesh import Mesh

_AT_ONCE: Final = 4
"""Requests that fetch, each of which holds one document."""


class DocumentUrls(Strict):
    """Addresses of documents to fetch, as one job."""

    urls: Annotated[
        list[Annotated[PlainText, Field(min_length=1, max_length=2_000)]],
        Field(min_length=1, max_length=20, fail_fast=True),
    ]
    """A document's id is its host and path."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Kept with every document, besides its `url`."""
    access: schemas.AccessTags | None = None
    """Access tags of every document."""


def router(mesh: Mesh, fetcher: UrlFetcher | None) -> APIRouter:
    """The route; without a fetcher it is forbidden."""
    routes = APIRouter(tags=["documents"])
    fetching = 0

    @routes.post("/v1/collections/{name}/documents/urls", status_code=202)
    async def fetch_documents(name: schemas.CollectionName, body: DocumentUrls) -> schemas.Accepted:
        """Fetch documents by URL; the job that is returned parses, embeds and indexes them."""
        nonlocal fetching
        if fetcher is None:
            raise Forbidden(
                "This gateway fetches no documents; RAGLAN_GATEWAY_URL_HOSTS names hosts from "
                "which it may."
            )
        if fetching == _AT_ONCE:
            raise Overloaded(
                f"{_AT_ONCE} requests fetch documents, the limit; try again soon.", retry_after_s=5
            )
        fetching += 1
        try:
            return await submit(mesh, name, _parts(fetcher, body))
        finally:
            fetching -= 1

    return routes


async def _parts(
    fetcher: UrlFetcher, body: DocumentUrls
) -> AsyncIterator[ingester_pb2.SubmitRequest]:
    for url in body.urls:
        found = await fetcher.fetch(url)
        yield _named(found, body)
        for begin in range(0, len(found.content), PIECE_BYTES):
            yield ingester_pb2.SubmitRequest(data=found.content[begin : begin + PIECE_BYTES])


def _named(found: Fetched, body: DocumentUrls) -> ingester_pb2.SubmitRequest:
    parts = urlsplit(found.url)
    query = f"?{parts.query}" if parts.query else ""
    metadata = {**body.metadata, "url": found.url}
    return header(
        document_id=unquote(f"{parts.netloc}{parts.path.rstrip('/')}{query}"),
        filename=unquote(parts.path.rpartition("/")[2]),
        media_type=found.media_type,
        metadata_json=metadata_json(metadata),
        access=body.access,
    )
