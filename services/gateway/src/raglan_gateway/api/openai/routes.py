"""Every route of the APIs that clients brought along."""

from __future__ import annotations

from fastapi import APIRouter

from raglan_gateway.api.openai import (
    chat,
    embeddings,
    files,
    models,
    rerank,
    responses,
    store_files,
    vector_stores,
)
from raglan_gateway.api.openai.file_store import FileStore
from raglan_gateway.api.openai.records import Records
from raglan_gateway.api.openai.vector_files import VectorFiles
from raglan_gateway.api.openai.vector_stores import VectorStores
from raglan_gateway.api.query import Answering
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.profiles import Profiles
from raglan_gateway.settings import GatewaySettings

_MAX_BATCHES = 1_000
_MAX_STORES = 10_000


def routers(
    mesh: Mesh,
    deletions: Deletions,
    answering: Answering,
    profiles: Profiles,
    settings: GatewaySettings,
) -> list[APIRouter]:
    """Build the routers, one a resource."""
    folder = settings.data_dir
    known = models.Models(profiles)
    store = FileStore(
        folder / "files", max_bytes=settings.max_files_mb * 2**20, max_files=settings.max_files
    )
    attachments = VectorFiles(mesh, deletions, store)
    named = Records(folder / "vector_stores", most=_MAX_STORES)
    return [
        models.router(known),
        chat.router(known, answering, settings),
        responses.router(known, answering, settings),
        embeddings.router(mesh, settings),
        rerank.router(mesh, settings),
        files.router(store, attachments),
        vector_stores.router(
            VectorStores(mesh, deletions, attachments, named), attachments, answering
        ),
        store_files.router(attachments),
        store_files.batches_router(
            mesh, attachments, Records(folder / "file_batches", most=_MAX_BATCHES)
        ),
    ]
