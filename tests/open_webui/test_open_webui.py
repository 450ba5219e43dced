"""Open WebUI, as its users see it in Chromium, before a mesh that asks for keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import mesh_process
import ports
import pytest
from faults.process import Process
from open_webui import halting_model

ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-open-webui" / "bin"
BROWSER: Final = Path(__file__).with_name("browser")
ADMIN: Final = "0123456789abcdef0123456789abcdef"
START_S: Final = 480
CHECKS_S: Final = 600
DOCUMENT: Final = {
    "id": "devices.md",
    "title": "Devices",
    "text": "Every model service runs on one device. The reranker runs on the second GPU when "
    "RAGLAN_RERANKER_DEVICE is set to cuda:1.",
    "metadata": {"url": "https://docs.example.org/devices"},
}


@contextmanager
def mesh(folder: Path, model: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Run a mesh that asks a model; yields its base URL and a key that may query."""
    variables |= {
        "RAGLAN_GATEWAY_ADMIN_KEY": ADMIN,
        "RAGLAN_GENERATOR_ENGINE": "openai",
        "RAGLAN_GENERATOR_BASE_URL": f"{model}/v1",
        "RAGLAN_GENERATOR_MODEL": "halting",
        "RAGLAN_GENERATOR_IDLE_TIMEOUT_S": "120",
    }
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with (
        mesh_process.running(folder, **variables) as running,
        running.client(headers=headers) as client,
    ):
        client.post("/v1/collections", json={"name": "default"}).raise_for_status()
        job = mesh_process.ingest(client, "default", [DOCUMENT])
        assert job["status"] == "succeeded", job
        made = client.post("/v1/keys", json={"name": "open-webui", "scopes": ["query"]})
        yield f"{running.url}/v1", made.json()["key"]


@contextmanager
def open_webui(folder: Path, base_url: str, key: str) -> Iterator[str]:
    """Run Open WebUI as docs/api/openai.md says; yields its address."""
    folder.mkdir()
    port = ports.free_port()
    server = Process(
        "open-webui",
        [str(ENVIRONMENT / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)],
        {
            "OPENAI_API_BASE_URL": base_url,
            "OPENAI_API_KEY": key,
            "ENABLE_OLLAMA_API": "False",
            "ENABLE_TITLE_GENERATION": "False",
            "ENABLE_TAGS_GENERATION": "False",
            "ENABLE_FOLLOW_UP_GENERATION": "False",
            # No accounts, no model of its own, nothing from the network.
            "DATA_DIR": str(folder),
            "WEBUI_AUTH": "False",
            "WEBUI_SECRET_KEY": "test",
            "RAG_EMBEDDING_MODEL": "",
            "OFFLINE_MODE": "True",
            "ANONYMIZED_TELEMETRY": "False",
        },
        folder / "log",
        port,
    )
    server.start()
    url = f"http://{server.address}"
    try:
        mesh_process.until(
            lambda: httpx.get(f"{url}/health", timeout=5).is_success,
            within_s=START_S,
            what="Open WebUI is up",
        )
        yield url
    finally:
        server.kill()


@pytest.mark.timeout(1400)
def test_a_question_is_answered_in_the_browser(tmp_path: Path, exported: dict[str, str]) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: apt-get install chromium"
    with (
        halting_model.serving() as model,
        mesh(tmp_path / "mesh", model, **exported) as (base_url, key),
        open_webui(tmp_path / "open-webui", base_url, key) as url,
    ):
        given = {"OPEN_WEBUI_URL": url, "MODEL_URL": model, "CHROMIUM": chromium}
        command = [
            str(ENVIRONMENT / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-c", os.devnull, "--noconftest", "--rootdir", str(BROWSER), "--timeout", "180",
            str(BROWSER / "check_chat.py"),
        ]  # fmt: skip
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | given
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECKS_S, env=variables
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
