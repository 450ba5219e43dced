"""Schemathesis against a gateway, as often as it takes to send a number of cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import mesh_process

HOOKS: Final = Path(__file__).parent / "fuzz" / "hooks.py"
_KEY_CREATION: Final = "create_key"
HANG_S: Final = 60
"""A reply that takes longer is a hang."""
_ROUND_S: Final = 900
_MAX_ROUNDS: Final = 40
# 504 answers a deadline that the request itself chose too short for what it asked; 431 a value
# that is too long for the head of a request. A part of a form is bytes whatever it was made from,
# so that a form meant to be wrong is often right.
_CONFIG: Final = """
[checks]
enabled = false
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
unsupported_method.enabled = true
[checks.not_a_server_error]
enabled = true
expected-statuses = ["2xx", "3xx", "4xx", 504]
[checks.negative_data_rejection]
enabled = true
expected-statuses = ["4xx", "5xx"]
[[operations]]
include-path = ["/v1/files", "/v1/collections/{name}/documents"]
checks.negative_data_rejection.enabled = false
"""


@dataclass(slots=True)
class Fuzzed:
    """Cases that were sent, and what was wrong with the replies."""

    cases: int = 0
    server_errors: int = 0
    hangs: int = 0
    others: int = 0
    """Replies that the document does not allow."""
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    """Output of the runs that found something."""


def fuzz(
    url: str,
    folder: Path,
    *,
    cases: int,
    headers: Mapping[str, str] | None = None,
    ids: Mapping[str, list[str]],
    phases: str = "examples,coverage,fuzzing,stateful",
) -> Fuzzed:
    """Send at least `cases` cases, in rounds with seeds of their own.

    Args:
        url: of the gateway.
        folder: for configuration and reports.
        cases: to send at least.
        headers: of every request.
        ids: that exist, by the name of the parameter; see `prepare`.
        phases: of the first round; those after it draw random cases only.
    """
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    found, begun = Fuzzed(), time.monotonic()
    for seed in range(1, _MAX_ROUNDS + 1):
        _add_round(found, url, folder, headers or {}, ids, phases, seed)
        if found.cases >= cases or found.server_errors or found.hangs or found.others:
            break
        phases = "fuzzing,stateful"
    found.seconds = time.monotonic() - begun
    return found


def _add_round(
    found: Fuzzed,
    url: str,
    folder: Path,
    headers: Mapping[str, str],
    ids: Mapping[str, list[str]],
    phases: str,
    seed: int,
) -> None:
    report = folder / f"round-{seed}.json"
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml",
        "run", f"{url}/openapi.json", "--phases", phases, "--max-examples", "10",
        "--seed", str(seed), "--continue-on-failure",
        "--request-timeout", str(HANG_S), "--suppress-health-check", "all",
        "--generation-database", "none", "--warnings", "off",
        # The first key closes the gateway to every later request without one.
        *(() if headers else ("--exclude-operation-id", _KEY_CREATION)),
        "--report", "json", "--report-json-path", str(report),
        *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")),
    ]  # fmt: skip
    environment = {"SCHEMATHESIS_HOOKS": str(HOOKS), "RAGLAN_FUZZ_IDS": json.dumps(dict(ids))}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_ROUND_S,
        cwd=folder,
        env=os.environ | environment,
    )
    assert report.is_file(), done.stdout[-4000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(report.read_text())
    found.cases += result["test_cases"]["generated"]
    kinds = Counter(_kind(each) for each in [*result["failures"], *result["errors"]])
    found.server_errors += kinds["server_error"]
    found.hangs += kinds["hang"]
    found.others += kinds["other"]
    if done.returncode != 0:
        found.said.append(done.stdout[-8000:] + done.stderr[-2000:])
        found.others += not kinds


def _kind(failure: Any) -> str:
    shown = json.dumps(failure).lower()
    if "timeout" in shown or "timed out" in shown:
        return "hang"
    return "server_error" if "server error" in shown or "server_error" in shown else "other"


def prepare(client: httpx.Client) -> dict[str, list[str]]:
    """Make something of each kind; returns the ids by the name of their parameter."""
    documents = [{"id": "a", "text": "Something to find. A pump stops at 90 C."}]
    for name in ("default", "a", "0"):
        client.post("/v1/collections", json={"name": name})
        job = mesh_process.ingest(client, name, documents)
    files = {"file": ("note.txt", b"A pump starts at 40 C.", "text/plain")}
    file = client.post("/v1/files", files=files, data={"purpose": "assistants"}).json()["id"]
    batch = client.post("/v1/vector_stores/a/file_batches", json={"file_ids": [file]}).json()["id"]
    mesh_process.finished(client, batch)
    session = client.post("/v1/sessions", json={}).json()["id"]
    asked = {"query": "When does a pump stop?", "session_id": session}
    reply = client.post("/v1/query", json=asked).json()
    return {
        "name": ["a", "0", "default"],
        "store_id": ["a", "0", "default"],
        "document_id": ["a", file],
        "file_id": [file],
        "batch_id": [batch],
        "job_id": [job["id"], batch],
        "session_id": [session],
        "query_id": [reply["id"]],
        "model": ["raglan"],
    }
