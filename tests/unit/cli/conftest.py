"""A gateway that behaves like the real one towards the command line, and the command itself."""

import hashlib
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from raglan_cli import jobs
from raglan_cli.__main__ import main
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@dataclass
class FakeGateway:
    """Collections and jobs in memory. A job's chunks are its documents; each poll moves it on."""

    url: str = ""
    collections: dict[str, dict[str, bytes]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[list[str]] = field(default_factory=list)
    metadata: str = ""
    """Of the last upload."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    """How many uploads are answered with 429 first."""
    max_file_bytes: int = 1 << 30
    poisoned: dict[str, str] = field(default_factory=dict)
    """Document id -> why it fails."""
    events: list[tuple[str, str]] = field(default_factory=list)
    """What a streamed answer consists of."""
    traces: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    """By which filters traces were listed last."""
    services: list[dict[str, Any]] = field(default_factory=list)
    search: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda body: []
    answer: Callable[[dict[str, Any]], str] = lambda body: ""

    def app(self) -> Starlette:
        name = "/v1/collections/{name}"
        return Starlette(
            routes=[
                Route("/v1/collections", self._create, methods=["POST"]),
                Route("/v1/collections", self._collections),
                Route(name, self._collection),
                Route(name, self._delete, methods=["DELETE"]),
                Route(f"{name}/documents", self._documents, methods=["POST"]),
                Route(f"{name}/documents", self._list),
                Route(f"{name}/documents/delete", self._delete_documents, methods=["POST"]),
                Route("/v1/jobs/{id}", self._job),
                Route("/v1/search", self._search, methods=["POST"]),
                Route("/v1/query", self._query, methods=["POST"]),
                Route("/v1/status", self._status),
                Route("/v1/traces", self._traces),
                Route("/v1/traces/{id}", self._trace),
            ]
        )

    async def _create(self, request: Request) -> Response:
        name = (await request.json())["name"]
        if name in self.collections:
            return _error(409, f"The collection {name!r} exists.")
        self.collections[name] = {}
        return JSONResponse({"name": name}, 201)

    async def _status(self, request: Request) -> Response:
        return JSONResponse({"services": self.services}) if self.services else Response("", 404)

    async def _collections(self, request: Request) -> Response:
        found = [{"name": name, "documents": len(d)} for name, d in self.collections.items()]
        return JSONResponse({"collections": found})

    async def _collection(self, request: Request) -> Response:
        held = self.collections.get(request.path_params["name"])
        if held is None:
            return _error(404, "There is no such collection.")
        return JSONResponse({"documents": len(held), "chunks": len(held)})

    async def _delete(self, request: Request) -> Response:
        del self.collections[request.path_params["name"]]
        return Response(status_code=204)

    async def _list(self, request: Request) -> Response:
        held = self.collections.get(request.path_params["name"])
        if held is None:
            return _error(404, "There is no such collection.")
        after, limit = request.query_params["after"], int(request.query_params["limit"])
        ids = sorted(each for each in held if each > after)
        page = [
            {
                "id": each,
                "sha256": hashlib.sha256(held[each]).hexdigest(),
                "status": "ready",
                "chunk_count": 1,
                "metadata": {},
            }
            for each in ids[:limit]
        ]
        more = page[-1]["id"] if len(ids) > limit else None
        return JSONResponse({"documents": page, "next_after": more})

    async def _delete_documents(self, request: Request) -> Response:
        held = self.collections[request.path_params["name"]]
        ids = (await request.json())["ids"]
        missing = [each for each in ids if held.pop(each, None) is None]
        return JSONResponse({"deleted_chunks": len(ids) - len(missing), "missing_ids": missing})

    async def _documents(self, request: Request) -> Response:
        if self.busy:
            self.busy -= 1
            return _error(429, "Too many uploads.", {"Retry-After": "0"})
        held = self.collections[request.path_params["name"]]
        documents = await _documents_of(self, request)
        self.uploads.append(list(documents))
        if any(len(data) > self.max_file_bytes for data in documents.values()):
            return _error(413, f"A file is over {self.max_file_bytes} bytes.")
        errors = [
            {"document_id": name, "message": self.poisoned[name]}
            for name in documents
            if name in self.poisoned
        ]
        job = {
            "id": f"job-{len(self.jobs)}",
            "status": "queued",
            "documents": len(documents),
            "unchanged": sum(held.get(name) == data for name, data in documents.items()),
            "errors": errors,
            "stages": {},
        }
        held |= {name: data for name, data in documents.items() if name not in self.poisoned}
        self.jobs[job["id"]] = job
        return JSONResponse({"job_id": job["id"]}, 202)

    async def _job(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        total = job["documents"]
        done = total - len(job["errors"])
        stages = {name: {"done": done, "total": total} for name in jobs.STAGES}
        reply = job | {"stages": stages}
        job["status"] = {
            "queued": "running",
            "running": "partial" if job["errors"] else "succeeded",
        }.get(job["status"], job["status"])
        return JSONResponse(reply)

    async def _search(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if body["collections"] != ["default"] and body["collections"][0] not in self.collections:
            return _error(404, f"There is no collection {body['collections'][0]!r}.")
        try:
            passages = self.search(body)
        except ValueError as error:
            return _error(422, str(error))
        return JSONResponse(
            {
                "passages": passages,
                "degraded": [],
                "timings_ms": {"total": 1.0},
                "trace_id": "t",
            }
        )

    async def _query(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if body["collections"] == ["missing"]:
            return _error(404, "There is no collection 'missing'.")
        if not body.get("stream"):
            return JSONResponse({"answer": self.answer(body), "citations": [], "degraded": []})
        lines = (f"event: {event}\ndata: {data}\n\n" for event, data in self.events)
        return StreamingResponse(iter(lines), media_type="text/event-stream")

    async def _traces(self, request: Request) -> Response:
        self.asked = dict(request.query_params)
        return JSONResponse({"traces": list(self.traces.values()), "next_before": None})

    async def _trace(self, request: Request) -> Response:
        trace_id = request.path_params["id"]
        if trace_id not in self.traces:
            return _error(404, f"There is no trace {trace_id}.")
        return JSONResponse(self.traces[trace_id])


async def _documents_of(gateway: FakeGateway, request: Request) -> dict[str, bytes]:
    if request.headers["content-type"] == "application/json":
        documents = (await request.json())["documents"]
        return {document["id"]: document["text"].encode() for document in documents}
    async with request.form() as form:
        gateway.metadata = str(form.get("metadata", ""))
        return {file.filename: await file.read() for file in form.getlist("files")}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"type": "x", "code": "X", "message": message, "request_id": "r", "retryable": False}
    return JSONResponse({"error": body}, status, headers)


@pytest.fixture
def gateway():
    """A fake gateway on a free port."""
    fake = FakeGateway()
    listening = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(fake.app(), log_config=None, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield fake
    server.should_exit = True
    thread.join(10)
    listening.close()
    assert not thread.is_alive()


@pytest.fixture
def raglan(monkeypatch, capsys, tmp_path):
    """Run the command in this process, against no mesh unless `url` is given."""
    monkeypatch.setenv("RAGLAN_DATA", str(tmp_path / "no-mesh"))
    monkeypatch.setenv("RAGLAN_HISTORY", str(tmp_path / "history.jsonl"))
    monkeypatch.delenv("RAGLAN_URL", raising=False)
    monkeypatch.setattr(jobs, "_POLL_S", 0.01)

    def run(*words, url=None):
        if url:
            monkeypatch.setenv("RAGLAN_URL", url)
        monkeypatch.setattr(sys, "argv", ["raglan", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(ended.value.code or 0, captured.out, captured.err)

    return run
