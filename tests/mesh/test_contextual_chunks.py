"""Chunks that a language model situates in their documents, through whole meshes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import pytest

PARTS = ["seal", "valve", "shaft", "rotor", "casing", "gasket"]
TEXT = "\n\n".join(
    f"It has to be replaced when the {part} is worn. The old {part} goes back to the store, and "
    f"the number of the new {part} is written into the book of the hall. " * 2
    for part in PARTS
)
ANIMALS = dict(zip(PARTS, ["otter", "heron", "badger", "salmon", "falcon", "beaver"], strict=True))


@dataclass
class Model:
    """An OpenAI-compatible server whose sentence names an animal that no document has."""

    breaks: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def sentence(self, body: dict[str, Any]) -> str:
        data = json.loads(body["messages"][-1]["content"])
        self.asked.append(data)
        animal = next(name for part, name in ANIMALS.items() if part in data["passage"])
        return f"This passage is about the {animal}, an animal that lives by the river."


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if model.breaks:
                self.send_error(500)
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self._send({"choices": [{"index": 0, "delta": {"content": model.sentence(body)}}]})
            self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._send({"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 12}})
            self.wfile.write(b"data: [DONE]\n\n")

        def _send(self, frame: object) -> None:
            self.wfile.write(f"data: {json.dumps(frame)}\n\n".encode())

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield model
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def contextual(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        mesh_process.running(
            tmp_path_factory.mktemp("contextual") / "data",
            RAGLAN_GENERATOR_ENGINE="openai",
            RAGLAN_GENERATOR_BASE_URL=model.url,
            RAGLAN_GENERATOR_MODEL="tiny",
            RAGLAN_INGESTER_CONTEXT_CALL_S="20",
        ) as mesh,
        mesh.client() as client,
    ):
        yield client


def made(client: httpx.Client, name: str) -> None:
    body = {"name": name, "chunking": {"max_chars": 300, "contextual": True}}
    reply = client.post("/v1/collections", json=body).raise_for_status().json()
    assert reply["chunking"]["contextual"] is True


def put(client: httpx.Client, collection: str, **metadata: Any) -> dict[str, Any]:
    document = {"id": "parts", "title": "Parts", "text": TEXT, "metadata": metadata}
    single = {"id": "short", "text": "One chunk is its own document."}
    job = mesh_process.ingest(client, collection, [document, single])
    assert job["status"] == "succeeded", job
    return job


def test_the_sentence_is_embedded_and_not_shown_and_paid_for_once(
    contextual: httpx.Client, model: Model
) -> None:
    made(contextual, "parts")
    job = put(contextual, "parts")
    chunks = contextual.get("/v1/collections/parts/documents/parts").json()["chunk_count"]
    assert chunks >= len(PARTS)
    assert len(model.asked) == chunks
    assert all(each["passage"] in each["document"] for each in model.asked)
    assert job["context"] == {
        "calls": chunks,
        "prompt_tokens": 90 * chunks,
        "completion_tokens": 12 * chunks,
        "reused": 0,
        "missing": 0,
    }
    for part, animal in ANIMALS.items():
        ask = {"query": f"the {animal} that lives by the river", "collections": ["parts"]}
        found = contextual.post("/v1/search", json={**ask, "mode": "dense", "rerank": False})
        best = found.raise_for_status().json()["passages"][0]
        assert part in best["text"]
        assert animal not in best["text"]
    again = put(contextual, "parts", team="hall")
    assert again["context"] == {
        "calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "reused": chunks, "missing": 0
    }  # fmt: skip


def test_a_model_that_fails_leaves_chunks_without_a_sentence_and_the_job_says_so(
    contextual: httpx.Client, model: Model
) -> None:
    made(contextual, "bare")
    model.breaks = True
    try:
        job = put(contextual, "bare")
    finally:
        model.breaks = False
    assert job["context"]["missing"] == contextual.get(
        "/v1/collections/bare/documents/parts"
    ).json()["chunk_count"]  # fmt: skip
    assert "embedded without a sentence of context" in job["warnings"][-1]["message"]
    ask = {"query": "When is the rotor replaced?", "collections": ["bare"]}
    found = contextual.post("/v1/search", json=ask).raise_for_status().json()
    assert "rotor" in found["passages"][0]["text"]


def test_without_a_language_model_it_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    body = {"name": "refused", "chunking": {"contextual": True}}
    reply = client.post("/v1/collections", json=body)
    assert reply.status_code == 409
    assert "needs a language model" in reply.json()["error"]["message"]
    assert client.get("/v1/collections/refused").status_code == 404
