"""A real Phoenix, a mesh that sends its traces there, and what Phoenix has of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import mesh_process
import ports
from faults.process import Process

PHOENIX: Final = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
QUESTION: Final = "Which setting pins the reranker?"
SETTING: Final = "RAGLAN_RERANKER_DEVICE"
DOCUMENTS: Final = [
    {
        "id": f"note-{number}",
        "title": f"Note {number}",
        "text": f"The setting {SETTING} pins the reranker of machine {number} to a GPU.",
    }
    for number in range(1, 6)
]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a Phoenix that keeps its data in `folder`."""
    port = ports.free_port()
    server = Process(
        "phoenix",
        [str(PHOENIX), "serve"],
        {
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(ports.free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        },
        folder / "log",
        port,
    )
    server.start()
    url = f"http://{server.address}"
    try:
        mesh_process.until(
            lambda: httpx.get(f"{url}/healthz", timeout=5).is_success,
            within_s=120,
            what="Phoenix is up",
        )
        yield url
    finally:
        server.kill()


@contextmanager
def exporting(folder: Path, phoenix: str, **variables: str) -> Iterator[mesh_process.Mesh]:
    """A mesh of real models, with documents, that sends its spans to Phoenix."""
    with mesh_process.running(folder, OTEL_EXPORTER_OTLP_ENDPOINT=phoenix, **variables) as mesh:
        with mesh.client() as client:
            client.post("/v1/collections", json={"name": "default"})
            job = mesh_process.ingest(client, "default", DOCUMENTS)
            assert job["status"] == "succeeded", job
        yield mesh


def spans_of(phoenix: str, trace_id: str) -> list[dict[str, Any]]:
    """What Phoenix has of a trace."""
    found = httpx.get(
        f"{phoenix}/v1/projects/default/spans",
        params={"trace_id": trace_id, "limit": 1000},
        timeout=30,
    )
    found.raise_for_status()
    return [span for span in found.json()["data"] if span["context"]["trace_id"] == trace_id]


def whole_trace(phoenix: str, trace_id: str) -> list[dict[str, Any]]:
    """The spans, once each has its parent and the root is there."""

    def complete() -> list[dict[str, Any]] | None:
        spans = spans_of(phoenix, trace_id)
        ids = {span["context"]["span_id"] for span in spans}
        orphans = [span for span in spans if span["parent_id"] and span["parent_id"] not in ids]
        has_root = any(span["parent_id"] is None for span in spans)
        kinds = {span["span_kind"] for span in spans}
        return spans if has_root and not orphans and "LLM" in kinds else None

    spans: list[dict[str, Any]] = mesh_process.until(complete, within_s=60, what="a whole trace")
    return spans
