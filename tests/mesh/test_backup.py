"""Backup during an upload, loss of everything, restore: the same cited answer comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mesh_process

TEXT = (
    "# Night watch\n\nThe lighthouse at Cape Orlen burns 1,200 litres of oil a year. Its keeper "
    "climbs 212 steps every evening, and the lamp can be seen for nineteen nautical miles.\n\n"
    "# Supplies\n\nThe supply boat Marit calls on the first Tuesday of each month."
)
QUESTION = {"query": "How many steps does the keeper climb?", "collections": ["watch"]}


def raglan(mesh: mesh_process.Mesh, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raglan_cli", *map(str, arguments), "--data", str(mesh.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def filler(count: int, of: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{of}-{number:03}",
            "text": " ".join(f"Entry {line} of log {number} says {of}." for line in range(60)),
        }
        for number in range(count)
    ]


def cited(client: httpx.Client) -> dict[str, Any]:
    """Of an answer, all that does not depend on time."""
    answer = client.post("/v1/query", json=QUESTION).json()
    return {name: answer[name] for name in ("answer", "citations", "degraded")} | {
        "passages": [(p["chunk_id"], p["scores"]["lexical"]) for p in answer["passages"]]
    }


def test_the_same_answer_after_everything_was_lost(
    tmp_path: Path, exported: dict[str, str]
) -> None:
    folder = tmp_path / "backup"
    with mesh_process.running(tmp_path / "mesh", **exported) as mesh, mesh.client() as client:
        client.post("/v1/collections", json={"name": "watch"})
        client.post("/v1/collections", json={"name": "busy"})
        documents = [{"id": "cape", "text": TEXT}, *filler(30, "calm")]
        assert mesh_process.ingest(client, "watch", documents)["status"] == "succeeded"
        before = cited(client)
        quote = before["citations"][0]
        stored = client.get("/v1/collections/watch/documents/cape").json()
        assert stored["text"][quote["start"] : quote["end"]] == quote["quote"]
        assert "212 steps" in quote["quote"]

        with standing_still(mesh, "embedder"):
            upload = {"documents": filler(60, "x")}
            job_id = client.post("/v1/collections/busy/documents", json=upload).json()["job_id"]
            cut_off(mesh, folder)
            made = raglan(mesh, "backup", folder, "--json")
            assert client.get(f"/v1/jobs/{job_id}").json()["status"] in {"queued", "running"}
        assert made.returncode == 0, made.stderr
        assert {"busy", "watch"} <= set(json.loads(made.stdout)["collections"])

    shutil.rmtree(tmp_path / "mesh")
    with mesh_process.running(tmp_path / "mesh", **exported) as mesh, mesh.client() as client:
        restore_through_a_crash(mesh, folder)
        assert cited(client) == before
        assert client.get("/v1/collections/watch/documents/cape").json() == stored
        job = mesh_process.finished(client, job_id)
        assert job["status"] == "succeeded", job
        collection = client.get("/v1/collections/busy").json()
        assert collection["documents"] == 60
        listed = client.get("/v1/collections/busy/documents?limit=1000").json()["documents"]
        assert sum(each["chunk_count"] for each in listed) == collection["chunks"]


@contextmanager
def standing_still(mesh: mesh_process.Mesh, service: str) -> Iterator[None]:
    """Stop a process, so that what needs it cannot end however fast the machine is."""
    pid = mesh.pid(service)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def restore_through_a_crash(mesh: mesh_process.Mesh, folder: Path) -> None:
    """Restore, and kill the ingester once it has begun: the command waits for it and goes on."""
    command = [sys.executable, "-m", "raglan_cli", "restore", str(folder), "--data", str(mesh.data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        database = sqlite3.connect(mesh.data / "ingester" / "ingester.sqlite", timeout=30)

        def begun() -> bool:
            rows = database.execute("SELECT units FROM restores").fetchall()
            return bool(rows and rows[0][0]) or process.poll() is not None

        mesh_process.until(begun, within_s=60, what="a unit is restored")
        database.close()
        os.kill(mesh.pid("ingester"), signal.SIGKILL)
        _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told


def cut_off(mesh: mesh_process.Mesh, folder: Path) -> None:
    """Begin a backup, kill it in the middle, and see that it cannot be restored."""
    command = [sys.executable, "-m", "raglan_cli", "backup", str(folder), "--data", str(mesh.data)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    progress = folder / "progress.json"
    mesh_process.until(progress.exists, within_s=60, what="a unit of the backup is whole")
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (folder / "manifest.json").exists():  # it was faster than the kill
        shutil.rmtree(folder)
        return
    refused = raglan(mesh, "restore", folder)
    assert refused.returncode == 1
    assert "was cut short; finish it with: raglan backup" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
