"""`/v1/files`: files that wait for a vector store to take them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from raglan.errors import InvalidInput
from raglan.identifiers import shortened
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import FormData, UploadFile

from raglan_gateway import caller
from raglan_gateway.access.collections import require
from raglan_gateway.api.openai import documented
from raglan_gateway.api.openai.file_store import FileStore, StoredFile
from raglan_gateway.api.openai.pages import Order, page
from raglan_gateway.api.openai.vector_files import VectorFiles
from raglan_gateway.error_envelopes import InvalidParameter

_PURPOSES: Final = ("assistants", "user_data")
_MAX_LISTED: Final = 10_000
_MAX_NAME_CHARS: Final = 255
_LASTS_S: Final = (3_600, 2_592_000)
_PIECE_BYTES: Final = 64 * 1024

_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FIELDS: Final = {
    "file": {"type": "string", "format": "binary"},
    "purpose": {"enum": list(_PURPOSES)},
    "expires_after[seconds]": {"type": "integer", "minimum": _LASTS_S[0], "maximum": _LASTS_S[1]},
}
_SCHEMA: Final = {"type": "object", "required": ["file", "purpose"], "properties": _FIELDS}
_FORM: Final = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}
}


def router(store: FileStore, attachments: VectorFiles) -> APIRouter:
    """The routes of files."""
    routes = documented.router("/v1/files")

    @routes.post("", openapi_extra=_FORM, **documented.returns(documented.FileObject))
    async def create_file(request: Request) -> dict[str, Any]:
        """Keep a file."""
        stored = await _kept(store, request)
        return shown(stored)

    @routes.get("", **documented.returns(documented.FileObjects))
    async def list_files(
        limit: int = _MAX_LISTED,
        order: Order = "desc",
        after: str | None = None,
        purpose: str | None = None,
    ) -> dict[str, Any]:
        """List files."""
        if not 1 <= limit <= _MAX_LISTED:
            raise InvalidParameter(f"limit is {limit}; it is 1 to {_MAX_LISTED}.", param="limit")
        found = await asyncio.to_thread(store.list, caller.current().tenant)
        files = [shown(each) for each in found if purpose in (None, each.purpose)]
        return page(files[:: -1 if order == "asc" else 1], limit=limit, after=after)

    @routes.get("/{file_id}", **documented.returns(documented.FileObject))
    async def get_file(file_id: str) -> dict[str, Any]:
        """One file."""
        return shown(await asyncio.to_thread(store.get, caller.current().tenant, file_id))

    @routes.get(
        "/{file_id}/content", response_class=StreamingResponse, responses={200: {"content": _BYTES}}
    )
    async def get_file_content(file_id: str) -> StreamingResponse:
        """The bytes of a file, as they came."""
        tenant = caller.current().tenant
        stored = await asyncio.to_thread(store.get, tenant, file_id)

        headers = {
            "Content-Length": str(stored.size_bytes),
            "Content-Disposition": "attachment",  # a browser never shows it as a page
            "X-Content-Type-Options": "nosniff",
        }
        body = iterate_in_threadpool(_pieces(await asyncio.to_thread(store.open, tenant, file_id)))
        return StreamingResponse(body, media_type="application/octet-stream", headers=headers)

    @routes.delete("/{file_id}", **documented.returns(documented.DeletedObject))
    async def delete_file(file_id: str) -> dict[str, Any]:
        """Delete a file, also from the vector stores that took it."""
        tenant = caller.current().tenant
        stored = await asyncio.to_thread(store.get, tenant, file_id)
        require(stored.vector_stores)  # all of them, before the first loses it
        for name in stored.vector_stores:
            await attachments.detach(name, file_id)
        await asyncio.to_thread(store.delete, tenant, file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


async def _kept(store: FileStore, request: Request) -> StoredFile:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise InvalidInput(
            f"The content type is {shortened(kind)}; send multipart/form-data with `file` and "
            "`purpose`."
        )
    async with request.form(max_files=1, max_fields=10, max_part_size=1024) as form:
        file, purpose, lasts_s = _from_form(form)
        return await asyncio.to_thread(
            store.add,
            caller.current().tenant,
            file.file,
            filename=_plain(file.filename or "file"),
            media_type=_plain(file.content_type or ""),
            purpose=purpose,
            lasts_s=lasts_s,
        )


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while piece := source.read(_PIECE_BYTES):
            yield piece


def shown(stored: StoredFile) -> dict[str, Any]:
    """Build a file object."""
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.size_bytes,
        "created_at": stored.created_at,
        "expires_at": stored.expires_at,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
    }


def _from_form(form: FormData) -> tuple[UploadFile, str, int | None]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidParameter("The form holds no file in the field `file`.", param="file")
    purpose = form.get("purpose")
    if purpose not in _PURPOSES:
        given = shortened(purpose) if isinstance(purpose, str) else "missing"
        raise InvalidParameter(
            f"purpose is {given}; it is one of {', '.join(_PURPOSES)}.", param="purpose"
        )
    seconds = form.get("expires_after[seconds]")
    if seconds is None:
        return file, str(purpose), None
    least, most = _LASTS_S
    if not (isinstance(seconds, str) and seconds.isascii() and seconds.isdigit()):
        raise InvalidParameter("expires_after[seconds] is no number.", param="expires_after")
    if len(seconds) > 10 or not least <= int(seconds) <= most:
        raise InvalidParameter(
            f"expires_after[seconds] is {seconds[:20]}; it is {least} to {most}.",
            param="expires_after",
        )
    return file, str(purpose), int(seconds)


def _plain(name: str) -> str:
    """Return `name` without characters that no store can hold."""
    kept = "".join(character for character in name if character.isprintable())
    return kept.encode(errors="ignore").decode()[-_MAX_NAME_CHARS:]
