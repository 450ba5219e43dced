"""What was acknowledged survives kill -9; what was in progress is completed, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mesh_process


def documents(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"d{number:04}",
            "title": f"Record {number}",
            "text": " ".join(f"Sentence {line} of record {number}." for line in range(60)),
        }
        for number in range(count)
    ]


def test_killing_services_in_mid_work_loses_and_doubles_nothing(
    tmp_path: Path, exported: dict[str, str]
) -> None:
    with mesh_process.running(tmp_path / "mesh", **exported) as mesh, mesh.client() as client:
        client.post("/v1/collections", json={"name": "kill"})
        sent = client.post("/v1/collections/kill/documents", json={"documents": documents(200)})
        job_id = sent.json()["job_id"]

        def underway() -> bool:
            stages = client.get(f"/v1/jobs/{job_id}").json()["stages"]
            return stages.get("index", {}).get("done", 0) > 0

        mesh_process.until(underway, within_s=60, what="some chunks are indexed")
        status = client.get(f"/v1/jobs/{job_id}").json()["status"]
        assert status == "running", "the job ended before it could be killed"
        os.kill(mesh.pid("ingester"), signal.SIGKILL)
        job = mesh_process.finished(client, job_id)
        assert job["status"] == "succeeded", job

        before = client.get("/v1/collections/kill").json()
        assert before["documents"] == 200
        killed = mesh.pid("retriever")
        os.kill(killed, signal.SIGKILL)

        def back() -> dict[str, object] | None:
            reply = client.get("/v1/collections/kill")
            return reply.json() if mesh.pid("retriever") != killed and reply.is_success else None

        after = mesh_process.until(back, within_s=60, what="the retriever is back")
        assert (after["documents"], after["chunks"]) == (before["documents"], before["chunks"])

        seen: set[str] = set()
        for number in (0, 57, 199):
            document = client.get(f"/v1/collections/kill/documents/d{number:04}").json()
            chunk_ids = [chunk["chunk_id"] for chunk in document["chunks"]]
            assert len(chunk_ids) == document["chunk_count"] > 0
            assert not seen & set(chunk_ids)
            seen |= set(chunk_ids)
