"""Each test of this folder works on the shared mesh, in a collection of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import mesh_process
import pytest


@pytest.fixture
def client(mesh: mesh_process.Mesh) -> Iterator[httpx.Client]:
    with mesh.client() as client:
        yield client


@pytest.fixture
def collection(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    assert client.post("/v1/collections", json={"name": name}).status_code == 201
    return name
