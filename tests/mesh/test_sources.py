"""A source from its file to an answer, seen by REST and by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import yaml


def raglan(mesh: mesh_process.Mesh, *arguments: str) -> Any:
    command = [sys.executable, "-m", "raglan_cli", "sources", *arguments, "--url", mesh.url]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def found(client: httpx.Client, query: str) -> set[str]:
    passages = client.post("/v1/search", json={"query": query}).json()["passages"]
    return {passage["document_id"] for passage in passages}


def test_a_folder_is_searched_and_followed(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "release.md").write_text("# Releases\n\nThe release manager signs off releases.\n")
    (folder / "holidays.md").write_text("# Holidays\n\nEverybody has thirty days of holiday.\n")
    file = tmp_path / "sources.yaml"
    entry = {"name": "handbook", "kind": "folder", "path": str(folder), "collection": "default"}
    file.write_text(yaml.safe_dump({"sources": [entry]}))
    variables = {"RAGLAN_INGESTER_SOURCES_FILE": str(file)}
    with mesh_process.running(tmp_path / "mesh", **variables) as mesh, mesh.client() as client:
        # The first attempt may come before its collection is made, and fail.
        mesh_process.until(
            lambda: (
                client.get("/v1/collections/default").status_code == 200
                and client.get("/v1/sources/handbook").json()["status"] not in ("due", "syncing")
            ),
            within_s=60,
            what="the collection is there and the first attempt has ended",
        )
        first = raglan(mesh, "sync", "handbook")
        assert (first["status"], first["documents"]) == ("synced", 2)
        assert "handbook/holidays.md" in found(client, "days of holiday")

        (folder / "holidays.md").unlink()
        second = raglan(mesh, "sync", "handbook")
        assert (second["last_sync"]["deleted"], second["documents"]) == (1, 1)
        assert found(client, "days of holiday") == {"handbook/release.md"}

        listed = client.get("/v1/sources").json()
        assert [each["name"] for each in listed["sources"]] == ["handbook"]
        assert raglan(mesh, "list") == listed
        assert raglan(mesh, "show", "handbook") == client.get("/v1/sources/handbook").json()
        assert client.get("/v1/sources/other").status_code == 404
