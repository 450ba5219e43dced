"""A language model behind the whole mesh: what it says is cited, checked, and never mistaken."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import pytest

GUIDE = (
    "Every model service runs on one device. The reranker runs on the second GPU when "
    "RAGLAN_RERANKER_DEVICE is set to cuda:1."
)
ASKED = {"query": "How do I run the reranker on the second GPU?", "collections": ["guide"]}


@dataclass
class Upstream:
    """An OpenAI-compatible server whose model says what a test tells it to."""

    says: list[str] = field(default_factory=list)
    ends: bool = True
    status: int = 200
    page: str = ""
    """Sent instead, as HTML with status 200."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    told = Upstream()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            told.asked.append(json.loads(self.rfile.read(length)))
            self.send_response(told.status)
            self.send_header("content-type", "text/html" if told.page else "text/event-stream")
            self.end_headers()
            self.wfile.write(told.page.encode() or b"".join(self._frames()))

        def _frames(self) -> Iterator[bytes]:
            for text in told.says:
                yield _frame({"choices": [{"index": 0, "delta": {"content": text}}]})
            if told.ends:
                yield _frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                usage = {"prompt_tokens": 90, "completion_tokens": 12}
                yield _frame({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def _frame(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


@pytest.fixture(scope="module")
def asking(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory, exported: dict[str, str]
) -> Iterator[httpx.Client]:
    variables = exported | {
        "RAGLAN_GENERATOR_ENGINE": "openai",
        "RAGLAN_GENERATOR_BASE_URL": upstream.url,
        "RAGLAN_GENERATOR_MODEL": "told",
    }
    data: Path = tmp_path_factory.mktemp("language-model")
    with mesh_process.running(data, **variables) as mesh, mesh.client() as client:
        assert client.post("/v1/collections", json={"name": "guide"}).status_code == 201
        job = mesh_process.ingest(client, "guide", [{"id": "guide", "text": GUIDE}])
        assert job["status"] == "succeeded", job
        yield client


def answer(client: httpx.Client) -> dict[str, Any]:
    reply = client.post("/v1/query", json=ASKED).raise_for_status()
    whole: dict[str, Any] = reply.json()
    return whole


def test_each_sentence_is_held_against_what_it_cites(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.says = [
        "To place the reranker on GPU number two, its device variable must be cuda:1 [1]",
        ". Bananas are a yellow fruit of the tropics [1]. It also flies [7].",
    ]
    reply = answer(asking)
    assert "[7]" not in reply["answer"], "a marker that names no passage"
    said = [reply["answer"][claim["start"] : claim["end"]] for claim in reply["claims"]]
    assert [re.sub(r" ?\[\d\]", "", text) for text in said] == [
        "To place the reranker on GPU number two, its device variable must be cuda:1.",
        "Bananas are a yellow fruit of the tropics.",
        "It also flies.",
    ]
    assert [claim["supported"] for claim in reply["claims"]] == [True, False, False]
    assert reply["claims"][1]["support"]["cosine"] < 0.5
    assert reply["groundedness"] == pytest.approx(1 / 3)
    assert reply["usage"] == {"prompt_tokens": 90, "completion_tokens": 12, "cached_tokens": 0}
    for citation in reply["citations"]:
        assert citation["quote"] == GUIDE[citation["start"] : citation["end"]]


def test_the_model_reads_the_question_last_and_the_passages_as_data(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.says = ["Yes [1]."]
    answer(asking)
    system, *_, user = upstream.asked[-1]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert ASKED["query"] not in system["content"]
    assert user["content"].rstrip().endswith(ASKED["query"])
    assert user["content"].index("cuda:1") < user["content"].index(ASKED["query"])


def test_a_web_page_instead_of_an_answer_is_never_the_answer(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.page = "<html>Sign in</html>"
    try:
        reply = answer(asking)
    finally:
        upstream.page = ""
    assert "Sign in" not in reply["answer"]
    [fallen] = reply["degraded"]
    assert (fallen["stage"], fallen["fallback"]) == ("generate", "passages")
    assert "event stream" in fallen["reason"]


def test_a_model_that_stops_in_mid_sentence_ends_the_stream_in_an_error(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.says, upstream.ends = ["The reranker runs"], False
    try:
        response = asking.post("/v1/query", json=ASKED | {"stream": True})
    finally:
        upstream.ends = True
    events = mesh_process.events(response)
    assert [name for name, _ in events] == ["start", "sources", "delta", "error"]
    assert events[-1][1]["code"] == "UNAVAILABLE"
    assert events[-1][1]["retryable"]


def test_a_question_in_another_language_is_for_the_model_to_decide(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.says = ["Mit cuda:1 [1]."]
    body = ASKED | {"query": "Wie laesst sich die Neusortierung verschieben?"}
    reply = asking.post("/v1/query", json=body).raise_for_status().json()
    assert reply["answer"] == "Mit cuda:1 [1]."
    assert (reply["finish_reason"], reply["abstained"]) == ("stop", False)
    upstream.says = ["The documents do not answer this."]
    reply = answer(asking)
    assert (reply["finish_reason"], reply["abstained"]) == ("abstained", True)


def test_reasoning_is_a_stream_of_its_own(asking: httpx.Client, upstream: Upstream) -> None:
    upstream.says = ["<think>It says", " cuda:1.</th", "ink>With cuda:1", " [1]."]
    response = asking.post("/v1/query", json=ASKED | {"stream": True})
    events = mesh_process.events(response)
    thought = "".join(data["text"] for name, data in events if name == "thinking")
    said = "".join(data["text"] for name, data in events if name == "delta")
    [final] = [data for name, data in events if name == "final"]
    assert (thought, said, final["answer"]) == ("It says cuda:1.", *["With cuda:1 [1]."] * 2)


def test_a_number_that_the_passage_does_not_say_is_not_supported(
    asking: httpx.Client, upstream: Upstream
) -> None:
    upstream.says = ["The reranker runs on the second GPU when the device is set to cuda:7 [1]."]
    [claim] = answer(asking)["claims"]
    assert claim["support"]["conflict"] == "number"
    assert not claim["supported"]


def test_a_model_that_is_busy_is_asked_once_a_query(
    asking: httpx.Client, upstream: Upstream
) -> None:
    for status in (429, 503):
        upstream.asked.clear()
        upstream.status = status
        try:
            reply = answer(asking)
        finally:
            upstream.status = 200
        assert [each["stage"] for each in reply["degraded"]] == ["generate"]
        assert len(upstream.asked) == 1
