"""Schemathesis sends what the OpenAPI document allows and what it forbids: never a 5xx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mesh_process
import pytest

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)
SECONDS = 150
# 504 answers a deadline that the request itself chose too short for what it asked.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


@pytest.mark.timeout(SECONDS * 3)
def test_no_request_makes_a_server_error(mesh: mesh_process.Mesh, tmp_path: Path) -> None:
    with mesh.client() as client:
        for name in ("default", "a", "0"):
            client.post("/v1/collections", json={"name": name})
            mesh_process.ingest(client, name, [{"id": "a", "text": "Something to find."}])
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
        "run", f"{mesh.url}/openapi.json", "--checks", CHECKS,
        "--max-examples", "30", "--seed", "1",
        "--continue-on-failure", "--request-timeout", "60", "--suppress-health-check", "all",
        "--max-time", str(SECONDS),
        "--generation-database", "none", "--warnings", "off",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS * 2.5, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout, done.stdout[-2000:]
