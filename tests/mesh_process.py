"""A whole mesh for tests: `raglan up` as a process, on a folder and a port of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ports
from raglan.rpc.addresses import format_address

START_S = 180.0
STOP_S = 40.0


@dataclass(frozen=True)
class Mesh:
    """A running mesh."""

    url: str
    data: Path
    process: subprocess.Popen[str]

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client of the gateway; close it."""
        return httpx.Client(base_url=self.url, **{"timeout": 60, **options})

    def services(self) -> list[dict[str, Any]]:
        """What mesh.json says of each process."""
        document = json.loads((self.data / "run" / "mesh.json").read_text())
        services: list[dict[str, Any]] = document["services"]
        return services

    def pid(self, service: str) -> int:
        """The process id of a service, or 0 while it is down."""
        return int(next(s["pid"] or 0 for s in self.services() if s["service"] == service))


def until(condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
    """Wait for `condition` to be true and return its value; fail by the name of `what`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (httpx.HTTPError, OSError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


UNCACHED = {f"RAGLAN_GATEWAY_{layer}_CACHE_S": "0" for layer in ("EMBEDDING", "EVIDENCE", "ANSWER")}
"""A query that is asked again passes all stages again."""


@contextmanager
def running(data: Path, *options: str, cached: bool = False, **variables: str) -> Iterator[Mesh]:
    """Start a mesh, wait until it is ready, stop it at the end.

    Args:
        data: its folder.
        options: of `raglan up`.
        cached: leaves the caches of queries on.
        variables: of its environment.
    """
    variables = variables if cached else UNCACHED | variables
    port = ports.free_port()
    command = [sys.executable, "-m", "raglan_cli", "up", "--data", str(data), "--port", str(port)]
    log = data.parent / f"{data.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            text=True,
        )
        host = variables.get("RAGLAN_GATEWAY_HOST", "127.0.0.1")
        mesh = Mesh(f"http://{format_address(host, port)}", data, process)
        try:
            until(lambda: _ready(mesh, log), within_s=START_S, what="the mesh is ready")
            yield mesh
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def ingest(
    client: httpx.Client, collection: str, documents: list[dict[str, Any]]
) -> dict[str, Any]:
    """Send documents and wait for their job."""
    reply = client.post(f"/v1/collections/{collection}/documents", json={"documents": documents})
    assert reply.status_code == 202, reply.text
    return finished(client, reply.json()["job_id"])


def finished(client: httpx.Client, job_id: str, *, within_s: float = 120) -> dict[str, Any]:
    """The job once it has ended."""

    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        return job if job.get("finished_at") else None

    job: dict[str, Any] = until(ended, within_s=within_s, what=f"job {job_id} ended")
    return job


def events(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The (name, data) pairs of a complete event stream."""
    found, name = [], ""
    for line in response.text.splitlines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def _ready(mesh: Mesh, log: Path) -> bool:
    if mesh.process.poll() is not None:
        raise AssertionError(f"raglan up ended with {mesh.process.returncode}:\n{log.read_text()}")
    ready = httpx.get(f"{mesh.url}/readyz", timeout=5)
    return set(ready.json()["dependencies"].values()) == {"serving"}
