"""SSL_CERT_FILE names the authorities of every HTTP client: a private one is trusted by all."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trustme
from opentelemetry.sdk.trace.export import SpanExportResult
from pydantic import SecretStr
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.http_client import ModelServer
from raglan.http_errors import RemoteServer
from raglan.telemetry.export import _Otlp
from raglan_cli.client import Gateway
from raglan_cli.failure import Failure
from raglan_generator.engines.openai import OpenAIModel
from raglan_generator.generation import Sampling

CALLED = RemoteServer(name="The model server", variables="RAGLAN_X")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def url(authority: trustme.CA) -> Iterator[str]:
    """An https server with a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return str(path)


async def asked_by_model_server(url: str) -> Any:
    server = ModelServer(url, called=CALLED)
    try:
        return await server.get("/", lambda reply: reply, deadline=Deadline.after(10))
    finally:
        await server.close()


@pytest.mark.usefixtures("trusted")
async def test_the_client_of_model_servers_trusts_it(url: str) -> None:
    assert await asked_by_model_server(url) == {}


async def test_without_the_variable_a_private_authority_is_not_trusted(url: str) -> None:
    with pytest.raises(Unavailable):
        await asked_by_model_server(url)
    with pytest.raises(Failure), Gateway(url) as gateway:
        gateway.call("GET", "/")


@pytest.mark.usefixtures("trusted")
async def test_the_client_of_language_models_trusts_it(url: str) -> None:
    model = OpenAIModel(
        url,
        "m",
        tokenizer=None,  # type: ignore[arg-type]
        api_key=SecretStr(""),
        sampling=Sampling(),
        adapters=MappingProxyType({}),
    )
    await model.start()
    assert model._client is not None
    async with model._client.get(url) as reply:
        assert reply.status == 200
    await model.close()


@pytest.mark.usefixtures("trusted")
def test_the_command_line_trusts_it(url: str) -> None:
    with Gateway(url) as gateway:
        assert gateway.call("GET", "/") == {}


def is_exported(url: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # those of requests come first
        monkeypatch.delenv(variable, raising=False)
    exporter = _Otlp()
    try:
        return exporter.export([]) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()


@pytest.mark.usefixtures("trusted")
def test_the_exporter_of_spans_trusts_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_exported(url, monkeypatch)


def test_a_certificate_that_is_named_to_opentelemetry_comes_first(
    url: str, trusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted)
    assert is_exported(url, monkeypatch)
