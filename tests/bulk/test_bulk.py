"""`raglan bulk` on a Ray cluster of two nodes gives the index of `raglan ingest`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mesh_process
import numpy as np
import pytest
import ray_cluster
from mesh_process import Mesh
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.rpc import client
from raglan.v1 import retriever_pb2, retriever_pb2_grpc
from ray_cluster import Cluster

REPOSITORY = Path(__file__).parents[2]
NOTES = 64
COMMAND_S = 150


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh_process.running(tmp_path_factory.mktemp("bulk") / "mesh") as mesh:
        yield mesh


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ray_cluster.running(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pages, many notes, and files that cannot be read or hold nothing."""
    folder = tmp_path_factory.mktemp("corpus") / "handbook"
    (folder / "pages").mkdir(parents=True)
    for page in sorted((REPOSITORY / "docs" / "api").glob("*.md"))[:6]:
        (folder / "pages" / page.name).write_text(page.read_text())
    for number in range(NOTES):
        text = f"# Note {number}\n\nPump {number} is serviced in week {number % 52}."
        (folder / f"note-{number}.md").write_text(text)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 no pages")
    (folder / "empty.txt").write_text("\n")
    for file in folder.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    return folder


def raglan(mesh: Mesh, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raglan_cli", *arguments, "--url", mesh.url, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
        text=True,
    )


def bulk(mesh: Mesh, folder: Path, cluster: Cluster, manifest: Path) -> subprocess.Popen[str]:
    options = ("--collection", "bulk", "--ray", cluster.address, "--manifest", str(manifest))
    return raglan(
        mesh, "bulk", str(folder), *options, "--data", str(mesh.data), **cluster.variables
    )


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=COMMAND_S)
    assert output.startswith("{"), errors + output
    found: dict[str, Any] = json.loads(output)
    return found


def lines(manifest: Path) -> list[dict[str, Any]]:
    text = manifest.read_text() if manifest.exists() else ""
    whole = text.rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in whole if "document" in json.loads(line)]


async def exported(mesh: Mesh, collection: str, documents: list[str]) -> dict[str, Any]:
    """Chunks by id, each as its message without its times, and its vector."""
    address = next(s["address"] for s in mesh.services() if s["service"] == "retriever")
    channel = client.connect(address, target="retriever")
    stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
    found = {}
    try:
        for document in documents:
            request = retriever_pb2.GetDocumentChunksRequest(
                collection=collection, document_id=document
            )
            try:
                reply = await client.call(stub.GetDocument, request, deadline=Deadline.after(30))
            except NotFound:  # it failed
                continue
            ids = [chunk.chunk_id for chunk in reply.chunks]
            wanted = retriever_pb2.ExportChunksRequest(collection=collection, chunk_ids=ids)
            kept = await client.call(stub.ExportChunks, wanted, deadline=Deadline.after(30))
            assert kept.answered == len(ids)
            vectors = tensors.unpack(kept.found.vectors)
            for chunk, vector in zip(kept.found.chunks, vectors, strict=True):
                chunk.ClearField("created_at")
                found[chunk.chunk_id] = chunk, vector
    finally:
        await channel.close()
    return found


def documents_of(mesh: Mesh, collection: str) -> dict[str, tuple[Any, ...]]:
    with mesh.client() as http:
        path = f"/v1/collections/{collection}/documents"
        found = http.get(path, params={"limit": 1000}).json()["documents"]
    names = ("sha256", "status", "chunks", "title", "media_type", "error")
    return {each["id"]: tuple(each.get(name) for name in names) for each in found}


def revision(mesh: Mesh) -> Any:
    with mesh.client() as http:
        return http.get("/v1/collections/bulk").json()


def test_a_killed_node_leaves_the_index_of_a_plain_ingestion_and_again_changes_nothing(
    mesh: Mesh, cluster: Cluster, corpus: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    plain = report(raglan(mesh, "ingest", str(corpus), "--collection", "plain"))
    running = bulk(mesh, corpus, cluster, manifest)
    mesh_process.until(
        lambda: running.poll() is not None or (lines(manifest) and cluster.nodes[1].actors()),
        within_s=COMMAND_S,
        what="both nodes work and a part is done",
    )
    done = len(lines(manifest))
    assert 0 < done < NOTES
    cluster.nodes[1].kill()
    first = report(running)

    listed = NOTES + 8
    assert (first["listed"], first["done_before"]) == (listed, 0)
    assert {each["document"] for each in first["failures"]} == {"handbook/broken.pdf"}
    assert (first["indexed"], first["failed"], first["gone"]) == (listed - 2, 1, 1)
    assert {each["document"] for each in plain["failed"]} >= {"handbook/broken.pdf"}

    kept = documents_of(mesh, "bulk")
    plainly = documents_of(mesh, "plain")
    plainly.pop("handbook/empty.txt", None)  # an empty file is a failed document there
    assert kept == plainly
    chunks = asyncio.run(exported(mesh, "bulk", sorted(kept)))
    expected = asyncio.run(exported(mesh, "plain", sorted(plainly)))
    assert chunks.keys() == expected.keys()
    assert len(chunks) > NOTES
    for name, (chunk, vector) in chunks.items():
        assert chunk == expected[name][0]
        assert np.dot(vector, expected[name][1]) > 0.999

    before = revision(mesh)
    again = report(bulk(mesh, corpus, cluster, manifest))
    assert (again["done_before"], again["indexed"]) == (listed - 2, 0)
    afresh = report(bulk(mesh, corpus, cluster, tmp_path / "other.jsonl"))
    assert (afresh["done_before"], afresh["indexed"]) == (0, listed - 2)
    assert revision(mesh) == before
    assert asyncio.run(exported(mesh, "bulk", sorted(kept))).keys() == chunks.keys()
