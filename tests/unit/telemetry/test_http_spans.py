"""Requests to a model server: their span, and the trace that travels with them."""

from __future__ import annotations

from collections.abc import Iterator

import http_model_server
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.http_client import ModelServer
from raglan.http_errors import RemoteServer
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLED = RemoteServer("The embedding server", "RAGLAN_EMBEDDER")


@pytest.fixture(scope="module")
def server() -> Iterator[http_model_server.ModelServer]:
    with http_model_server.serving() as running:
        yield running


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("embedder")
    yield installed
    installed.close()


async def ask(server: http_model_server.ModelServer, how: str) -> None:
    """Embed a text in a trace."""
    client = ModelServer(
        f"{server.url}/{how}/v1", called=CALLED, api_key=SecretStr(http_model_server.KEY)
    )
    carrier = {
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "x-request-id": "ours",
    }
    try:
        with request_context.incoming(carrier):
            body = {"input": ["what Mrs Miller asked"], "model": "m"}
            await client.post("/embeddings", body, dict, deadline=Deadline.after(0.5))
    finally:
        await client.close()


def only(traces: tracing.Tracing) -> ReadableSpan:
    (span,), _ = traces.recent.of(int(TRACE, 16))
    return span


async def test_the_server_is_told_the_trace_and_not_what_is_ours(
    server: http_model_server.ModelServer, traces: tracing.Tracing
) -> None:
    await ask(server, "good")
    span, sent = only(traces), server.headers[-1]
    assert sent["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert sent["tracestate"] == "vendor=1"
    assert "x-request-id" not in sent
    assert (span.name, span.kind) == ("POST /good/v1/embeddings", SpanKind.CLIENT)
    assert (span.attributes or {})[semconv.HTTP_STATUS] == 200
    assert span.status.status_code is StatusCode.OK


@pytest.mark.parametrize(
    ("how", "type_"), [("hang", "deadline_exceeded"), ("429", "overloaded"), ("cut", "unavailable")]
)
async def test_a_request_that_fails_is_an_error_without_what_was_asked(
    how: str, type_: str, server: http_model_server.ModelServer, traces: tracing.Tracing
) -> None:
    with pytest.raises(RaglanError):
        await ask(server, how)
    span = only(traces)
    assert span.status.status_code is StatusCode.ERROR
    assert "Miller" not in span.to_json()
    assert http_model_server.KEY not in span.to_json()
