"""An OpenAI-compatible model that halts in the middle of each answer until it is told to go on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_HALT_S: Final = 120
"""Longest halt."""


@contextmanager
def serving() -> Iterator[str]:
    """Serve the model; yields its address. `POST /proceed` ends one halt."""
    proceed = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            if self.path == "/proceed":
                proceed.release()
                self.send_response(204)
                self.end_headers()
                return
            turns = len(json.loads(body)["messages"])
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self._send(_delta("The reranker runs on the second GPU [1]. "))
            proceed.acquire(timeout=_HALT_S)
            self._send(_delta(f"The setting is RAGLAN_RERANKER_DEVICE, says turn {turns} [1]."))
            self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self.wfile.write(b"data: [DONE]\n\n")

        def _send(self, value: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}
