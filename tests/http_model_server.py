"""A model server on loopback that computes what it is given to compute with, or misbehaves.

The first part of the path says how: `/good/v1/embeddings`, `/hang/rerank`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "sk-a-secret-key"
Embed = Callable[[list[str]], NDArray[Any]]
Score = Callable[[str, list[str]], Sequence[float]]


@dataclass
class ModelServer:
    """What it was asked, for tests to look at."""

    embed: Embed
    score: Score
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    failures_left: int = 0
    """So many requests to `/starting` are answered 503, and to `/crowded` 429."""


@contextmanager
def serving(embed: Embed | None = None, score: Score | None = None) -> Iterator[ModelServer]:
    """Run one on a free port until the block ends."""
    server = ModelServer(
        embed or (lambda texts: np.ones((len(texts), 3), np.float32)),
        score or (lambda query, texts: [float(len(text)) for text in texts]),
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    running = uvicorn.Server(
        uvicorn.Config(_app(server), log_config=None, ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    limit = time.monotonic() + 10
    while not running.started and time.monotonic() < limit:
        time.sleep(0.01)
    assert running.started
    yield server
    running.should_exit = True
    thread.join(10)
    listening.close()


def _app(server: ModelServer) -> Starlette:
    async def embeddings(request: Request) -> Response:
        return await _answer(server, request, _openai)

    async def embed(request: Request) -> Response:
        return await _answer(server, request, _tei)

    async def rerank(request: Request) -> Response:
        return await _answer(server, request, _rerank)

    async def info(request: Request) -> Response:
        known = {"model_id": "a/model", "model_sha": "0123456789abcdef", "model_dtype": "float16"}
        return JSONResponse(known)

    return Starlette(
        routes=[
            Route("/{how}/v1/embeddings", embeddings, methods=["POST"]),
            Route("/{how}/embed", embed, methods=["POST"]),
            Route("/{how}/rerank", rerank, methods=["POST"]),
            Route("/{how}/info", info),
        ]
    )


async def _answer(
    server: ModelServer, request: Request, good: Callable[[ModelServer, str, Any], Any]
) -> Response:
    how = request.path_params["how"]
    body = await request.json()
    server.requests.append(body)
    server.headers.append(dict(request.headers))
    server.at_once += 1
    server.most_at_once = max(server.most_at_once, server.at_once)
    try:
        if (failure := await _failure(server, how)) is not None:
            return failure
        answer = await asyncio.to_thread(good, server, how, body)
    finally:
        server.at_once -= 1
    # json.dumps writes NaN, as Python servers do; JSONResponse would refuse to.
    return Response(json.dumps(answer), media_type="application/json")


async def _failure(server: ModelServer, how: str) -> Response | None:
    if how in ("starting", "crowded") and server.failures_left:
        server.failures_left -= 1
        return JSONResponse({}, 503 if how == "starting" else 429, {"retry-after": "0.01"})
    if how == "plain" and "encoding_format" in server.requests[-1]:
        return JSONResponse({"error": {"message": "unknown field encoding_format"}}, 422)
    if how.isdigit():
        said = {"error": {"message": f"a reason, and {KEY}"}}
        return JSONResponse(said, int(how), {"retry-after": "7"})
    if how == "html":
        return HTMLResponse("<html>a proxy's page</html>")
    if how == "hang":
        await asyncio.sleep(20)
    if how == "slow":
        await asyncio.sleep(0.05)
    if how == "cut":
        return StreamingResponse(_cut(), headers={"content-length": "1000"})
    if how == "huge":
        return StreamingResponse(_huge(), media_type="application/json")
    if how == "redirect":
        return Response(status_code=307, headers={"location": "/good/embed"})
    return None


async def _cut() -> AsyncIterator[bytes]:
    yield b'{"data": ['
    raise ConnectionResetError


async def _huge() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" " * 100_000


def _spoilt(rows: list[Any], how: str) -> list[Any]:
    match how:
        case "wrong-count":
            return rows[:-1]
        case "nan":
            return [[float("nan"), *row[1:]] for row in rows]
        case "null":
            return [[None, *row[1:]] for row in rows]
        case "ragged":
            return [row[: len(row) - i] for i, row in enumerate(rows)]
        case "empty":
            return [[] for _ in rows]
        case "words":
            return [["one"] for _ in rows]
        case "infinite":
            return [[1e300, *row[1:]] for row in rows]
    return rows


def _openai(server: ModelServer, how: str, body: Any) -> Any:
    vectors = np.asarray(server.embed(body["input"]), np.float32)
    embeddings: list[Any] = _spoilt(vectors.tolist(), how)
    if how == "base64":
        embeddings = [base64.b64encode(row.tobytes()).decode() for row in vectors]
    if how == "bad-base64":
        embeddings = ["not base64!" for _ in vectors]
    data = [{"index": i, "embedding": each} for i, each in enumerate(embeddings)]
    if how == "shuffled":
        data.reverse()
    if how == "twice":
        data = [data[0]] * len(data)
    return [] if how == "other-form" else {"data": data, "model": body["model"]}


def _tei(server: ModelServer, how: str, body: Any) -> Any:
    return _spoilt(np.asarray(server.embed(body["inputs"])).tolist(), how)


def _rerank(server: ModelServer, how: str, body: Any) -> Any:
    key = "score" if "texts" in body else "relevance_score"
    scores = list(server.score(body["query"], body.get("texts") or body["documents"]))
    if how == "nan":
        scores[0] = float("nan")
    results = [{"index": i, key: score} for i, score in enumerate(scores)]
    if how == "wrong-count":
        results = results[:-1]
    if how == "twice":
        results = [results[0]] * len(results)
    results.sort(key=lambda each: -each[key])
    if how == "other-form":
        return {"scores": scores}
    return results if "texts" in body else {"results": results}
