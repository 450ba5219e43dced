"""Clients of other APIs, run in an environment of their own, against meshes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import mesh_process
import pytest

CLIENTS = Path(__file__).with_name("clients")
PYTHON = Path(__file__).parents[2] / ".venv-api-clients" / "bin" / "python"
ADMIN = "0123456789abcdef0123456789abcdef"
DOCUMENTS = [
    {
        "id": "devices.md",
        "title": "Devices",
        "text": "Every model service runs on one device. The reranker runs on the second GPU when "
        "RAGLAN_RERANKER_DEVICE is set to cuda:1.",
        "metadata": {"team": "search", "url": "https://docs.example.org/devices"},
    },
    {
        "id": "releases.md",
        "title": "Releases",
        "text": "The release manager signs off every release. Releases are weekly.",
        "metadata": {"team": "release"},
    },
]


@contextmanager
def language_model() -> Iterator[str]:
    """An OpenAI-compatible server that reasons, cites, and says how it was sampled."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"".join(map(frame, deltas(asked))))
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            usage = {"prompt_tokens": 90, "completion_tokens": 12}
            self.wfile.write(frame(end) + frame({"choices": [], "usage": usage}))
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    def deltas(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "response_format" in asked:
            yield delta(content='{"device": "cuda:1"}')
            return
        yield delta(reasoning_content="The passage names the device.")
        sampling = {name: asked.get(name) for name in ("temperature", "top_p", "seed", "stop")}
        turns = len(asked["messages"])
        yield delta(content="The reranker runs on the second GPU [1]. ")
        yield delta(content=f"Asked with {json.dumps(sampling)} in {turns} messages.")

    def delta(**fields: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": fields}]}

    def frame(value: object) -> bytes:
        return f"data: {json.dumps(value)}\n\n".encode()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def urls(
    tmp_path_factory: pytest.TempPathFactory, exported: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Base URLs of a mesh that quotes, and of one that asks a language model."""
    folder = tmp_path_factory.mktemp("api-clients")
    with language_model() as upstream:
        model = {
            "RAGLAN_GENERATOR_ENGINE": "openai",
            "RAGLAN_GENERATOR_BASE_URL": upstream,
            "RAGLAN_GENERATOR_MODEL": "told",
        }
        with (
            mesh_process.running(folder / "quotes", **exported) as quotes,
            mesh_process.running(folder / "asks", **exported, **model) as asks,
        ):
            for mesh in (quotes, asks):
                with mesh.client() as client:
                    client.post("/v1/collections", json={"name": "default"}).raise_for_status()
                    job = mesh_process.ingest(client, "default", DOCUMENTS)
                    assert job["status"] == "succeeded", job
            yield {"QUOTES_URL": quotes.url, "ASKS_URL": asks.url}


@pytest.mark.parametrize("client", sorted(path.name for path in CLIENTS.glob("check_*.py")))
async def test_client(client: str, urls: dict[str, str]) -> None:
    await run(client, urls)


async def test_every_error_is_the_openai_clients_own(tmp_path: Path) -> None:
    """By a gateway of this process that asks for keys and has no services."""
    async with gateway_serving.serving(admin_key=ADMIN, data_dir=tmp_path) as (gateway, _):
        headers = {"Authorization": f"Bearer {ADMIN}"}
        body = {"name": "limited", "scopes": ["query"], "limits": {"requests_per_minute": 1}}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            made = await client.post("/v1/keys", json=body)
        variables = {
            "CLOSED_URL": gateway.url,
            "ADMIN_KEY": ADMIN,
            "LIMITED_KEY": made.json()["key"],
        }
        await run("errors_openai.py", variables)


async def run(client: str, given: dict[str, str]) -> None:
    command = [
        str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
        "--noconftest", "--rootdir", str(CLIENTS), "--timeout", "120", str(CLIENTS / client),
    ]  # fmt: skip
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | given
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=300, env=variables
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
