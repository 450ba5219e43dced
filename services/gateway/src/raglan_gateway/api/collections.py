"""`/v1/collections`: make, list, look at, delete."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter
from raglan.deadline import Deadline
from raglan.errors import Conflict, InvalidInput
from raglan.identifiers import shortened
from raglan.v1 import common_pb2, ingester_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.api import replies, schemas
from raglan_gateway.api.version_schemas import KeptVersions
from raglan_gateway.collection_profiles import CollectionProfiles, CollectionSettings
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.profiles import Profiles
from raglan_gateway.strategies.startup import WITHOUT_MODEL

TIMEOUT_S: Final = 30.0


async def create(
    mesh: Mesh,
    name: str,
    chunking: schemas.Chunking,
    *,
    embedder: str | None = None,
    versions: KeptVersions | None = None,
    vectors: schemas.FurtherVectors | None = None,
) -> retriever_pb2.Collection:
    """Make a collection for the vectors of the model that the mesh serves.

    Raises:
        Conflict: it exists with other settings, or `embedder` is not the served model.
        InvalidInput: the served model does not give the `vectors`.
    """
    deadline = Deadline.after(TIMEOUT_S)
    info: common_pb2.ServiceInfo = await mesh.embedder.call(
        "GetInfo", common_pb2.GetInfoRequest(), deadline=deadline
    )
    if embedder is not None and embedder != info.model.id:
        raise Conflict(f"embedder is {shortened(embedder)}; this mesh serves {info.model.id!r}.")
    if chunking.contextual:
        await _require_language_model(mesh, deadline)
    request = retriever_pb2.CreateCollectionRequest(
        name=name,
        embedder=info.model,
        further_vectors=_further(vectors, info) if vectors else None,
        chunking=retriever_pb2.Chunking(
            max_chars=chunking.max_chars,
            overlap_chars=chunking.overlap_chars,
            strategy=chunking.strategy,
            contextual=chunking.contextual,
        ),
    )
    if versions is not None:
        request.versions.max_versions = versions.max_versions
        request.versions.max_age_days = versions.max_age_days or 0
    made: retriever_pb2.Collection = await mesh.retriever.call(
        "CreateCollection", request, deadline=deadline
    )
    return made


async def _require_language_model(mesh: Mesh, deadline: Deadline) -> None:
    """Raise Conflict where nothing can write sentences for chunks."""
    writer: common_pb2.ServiceInfo = await mesh.pools["generator"].call(
        "GetInfo", common_pb2.GetInfoRequest(), deadline=deadline
    )
    if writer.engine in WITHOUT_MODEL:
        raise Conflict(
            f"contextual needs a language model, and the generator here is {writer.engine!r} "
            "(RAGLAN_GENERATOR_ENGINE)."
        )


def _further(
    wanted: schemas.FurtherVectors, info: common_pb2.ServiceInfo
) -> retriever_pb2.FurtherVectors:
    """Return the vectors that a collection will have besides the dense one.

    Raises:
        InvalidInput: the served model does not give one of them.
    """
    for field, is_wanted, output in (
        ("late_interaction", wanted.late_interaction, "token_vectors"),
        ("sparse", wanted.sparse, "sparse"),
    ):
        if is_wanted and output not in info.outputs:
            raise InvalidInput(
                f"vectors.{field} needs an embedding model that gives {output}; {info.model.id!r} "
                f"on engine {info.engine!r} gives {', '.join(info.outputs)} alone. Serve another "
                "model or engine (RAGLAN_EMBEDDER_MODEL, RAGLAN_EMBEDDER_ENGINE), or leave it out."
            )
    return retriever_pb2.FurtherVectors(
        token_vectors=wanted.late_interaction,
        token_pooling=wanted.token_pooling,
        sparse=wanted.sparse,
    )


async def ensure_default(mesh: Mesh, name: str) -> None:
    """Make the current tenant's own default collection, unless it has one."""
    with suppress(Conflict):  # with settings of its own
        await create(mesh, name, schemas.Chunking())


async def listed(mesh: Mesh) -> list[schemas.Collection]:
    """Return the collections that the caller may see."""
    found: retriever_pb2.ListCollectionsResponse = await mesh.retriever.call(
        "ListCollections",
        retriever_pb2.ListCollectionsRequest(),
        deadline=Deadline.after(TIMEOUT_S),
    )
    return [replies.collection(c) for c in found.collections]


async def delete(mesh: Mesh, deletions: Deletions, name: str) -> int:
    """Delete a collection with its documents; returns how many chunks it had.

    Raises:
        NotFound: there is none.
    """

    async def retrieve(method: str, request: Any, *, retry: bool = True) -> Any:
        return await mesh.retriever.call(
            method, request, deadline=Deadline.after(TIMEOUT_S), retry=retry
        )

    async def forget_documents() -> None:
        await mesh.ingester.call(
            "DeleteDocuments",
            ingester_pb2.DeleteDocumentsRequest(collection=name),
            deadline=Deadline.after(TIMEOUT_S),
            retry=False,
        )

    async def drop() -> retriever_pb2.DeleteCollectionResponse:
        await forget_documents()
        dropped: retriever_pb2.DeleteCollectionResponse = await retrieve(
            "DeleteCollection", retriever_pb2.DeleteCollectionRequest(name=name), retry=False
        )
        return dropped

    held = await retrieve("GetCollection", retriever_pb2.GetCollectionRequest(name=name))
    await deletions.run(name, drop)
    # Documents submitted in between would appear in the next collection of that name.
    await forget_documents()
    return int(held.chunks)


def router(
    mesh: Mesh, deletions: Deletions, profiles: Profiles, defaults: CollectionProfiles
) -> APIRouter:
    """The routes of collections."""
    routes = APIRouter(prefix="/v1/collections", tags=["collections"])

    async def retrieve(method: str, request: Any) -> Any:
        return await mesh.retriever.call(method, request, deadline=Deadline.after(TIMEOUT_S))

    @routes.post("", status_code=201)
    async def create_collection(body: schemas.NewCollection) -> schemas.Collection:
        """Make a collection; asking again for the same one is no error."""
        chunking = body.chunking or schemas.Chunking()
        made = await create(
            mesh,
            body.name,
            chunking,
            embedder=body.embedder,
            versions=body.versions,
            vectors=body.vectors,
        )
        return replies.collection(made)

    @routes.get("")
    async def list_collections() -> schemas.Collections:
        """Every collection with its statistics."""
        return schemas.Collections(collections=await listed(mesh))

    @routes.get("/{name}")
    async def get_collection(name: schemas.CollectionName) -> schemas.Collection:
        """One collection with its statistics."""
        request = retriever_pb2.GetCollectionRequest(name=name)
        return replies.collection(await retrieve("GetCollection", request))

    @routes.patch("/{name}")
    async def update_collection(
        name: schemas.CollectionName, body: schemas.CollectionChanges
    ) -> schemas.Collection:
        """Change the profile of questions that name none, or the recall of the vector index."""
        if body.profile:
            profiles.require(body.profile)
        given = body.model_fields_set
        request = retriever_pb2.UpdateCollectionRequest(
            name=name,
            profile=(body.profile or "") if "profile" in given else None,
            recall_target=(body.recall_target or 0) if "recall_target" in given else None,
        )
        found = await retrieve("UpdateCollection", request)
        settings = CollectionSettings.of(found.profile, found.further_vectors)
        defaults.learn(caller.current().tenant, name, settings)
        return replies.collection(found)

    @routes.delete("/{name}")
    async def delete_collection(name: schemas.CollectionName) -> schemas.Deleted:
        """Delete a collection with its documents; jobs that feed it are cancelled."""
        chunks = await delete(mesh, deletions, name)
        defaults.learn(caller.current().tenant, name, None)
        return schemas.Deleted(deleted_chunks=chunks)

    return routes
