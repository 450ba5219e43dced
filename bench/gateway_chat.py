"""Cost of `/v1/chat/completions` over `/v1/query`: one question by turns on one connection."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from typing import Any, Final

import null_mesh
from report import Row

PAIRS: Final = 1_000
WARM: Final = 100
QUESTION: Final = "How do I pin the reranker to the second GPU?"
QUERY: Final = {"query": QUESTION}
CHAT: Final = {"model": "raglan", "messages": [{"role": "user", "content": QUESTION}]}


def chat() -> list[Row]:
    """Added p50, whole and streamed, on null engines whose every service is a process."""
    with null_mesh.running(RAGLAN_GENERATOR_NULL_TOKEN_MS="0") as mesh:
        connection = http.client.HTTPConnection("127.0.0.1", null_mesh.port(mesh), timeout=30)
        try:
            return [
                _added(connection, "one reply", {}),
                _added(connection, "a stream, to its end", {"stream": True}),
            ]
        finally:
            connection.close()


def _added(connection: http.client.HTTPConnection, form: str, fields: dict[str, Any]) -> Row:
    query = json.dumps(QUERY | fields).encode()
    completion = json.dumps(CHAT | fields).encode()
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM + PAIRS):
        took[0].append(_ms(connection, "/v1/query", query))
        took[1].append(_ms(connection, "/v1/chat/completions", completion))
    ours, theirs = (statistics.median(each[WARM:]) for each in (took[1], took[0]))
    return Row(
        f"/v1/chat/completions over /v1/query, {form}: added p50",
        "ms",
        ours - theirs,
        "<= 1",
        note=f"p50 {ours:.2f} against {theirs:.2f} ms, by turns, {PAIRS} pairs",
    )


def _ms(connection: http.client.HTTPConnection, path: str, body: bytes) -> float:
    begun = time.perf_counter()
    connection.request("POST", path, body, {"content-type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    assert reply.status == 200, text
    return (time.perf_counter() - begun) * 1e3
