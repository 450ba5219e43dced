"""A client that openapi-python-client makes of the OpenAPI document imports, calls and reads."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import pytest
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    app = build(GatewaySettings(**gateway_serving.NOWHERE))
    document = tmp_path / "openapi.json"
    made_document = await asyncio.to_thread(app.openapi)
    document.write_text(json.dumps(made_document))
    config = tmp_path / "config.yaml"
    config.write_text("content_type_overrides: {application/x-ndjson: text/plain}\n")
    command = [
        "openapi-python-client", "generate", "--path", str(document), "--config", str(config),
        "--output-path", str(tmp_path / "made"), "--fail-on-warning",
    ]  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(tmp_path / "made"))
    made: Any = importlib.import_module("raglan_client")
    client = made.Client(base_url="http://localhost")
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        client.set_async_httpx_client(http)
        yield client
    for name in [name for name in sys.modules if name.startswith("raglan_client")]:
        del sys.modules[name]


async def test_a_generated_client_reads_replies_and_errors(client: Any) -> None:
    models = importlib.import_module("raglan_client.models")
    alive = importlib.import_module("raglan_client.api.operations.alive")
    assert (await alive.asyncio(client=client)).status == "ok"

    search = importlib.import_module("raglan_client.api.query.search")
    asked = models.SearchRequest(query="a", top_k=3)
    reply = await search.asyncio_detailed(client=client, body=asked)
    assert reply.status_code == 503
    assert reply.parsed.error.type_ == "unavailable"

    # Not upload: of a route with two content types openapi-python-client 0.29 forgets an import.
    make = importlib.import_module("raglan_client.api.collections.create_collection")
    refused = await make.asyncio_detailed(client=client, body=models.NewCollection(name="../a"))
    assert refused.status_code == 422
    assert "name" in refused.parsed.error.message
