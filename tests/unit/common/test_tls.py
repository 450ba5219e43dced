"""Mutual TLS between services, with a private authority made here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from certificates import Authority
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan import settings, tls_files
from raglan.rpc.endpoint import Endpoint, Reach
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings, SettingsError
from raglan_cli.mesh import Program
from raglan_cli.readiness import is_ready

ASK = health_pb2.HealthCheckRequest()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secured(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process has a certificate of every service, in files of the returned folder."""
    for name, value in authority.write(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@asynccontextmanager
async def serving(name: str = "Embedder") -> AsyncIterator[Server]:
    service = Service(f"raglan.v1.{name}Service", lambda server: None)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(port: int, credentials: grpc.ChannelCredentials | None) -> Any:
    """Return the outcome of a foreign caller's health check."""
    address = f"127.0.0.1:{port}"
    options = [("grpc.ssl_target_name_override", "embedder")]
    channel = (
        grpc.aio.secure_channel(address, credentials, options=options)
        if credentials
        else grpc.aio.insecure_channel(address)
    )
    async with channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
            return (await check(ASK, timeout=5)).status
        except grpc.aio.AioRpcError as error:
            return error.code()


def credentials_of(authority: Authority, *, root: Authority) -> grpc.ChannelCredentials:
    issued = authority.ca.issue_cert("gateway")
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(
        root.ca.cert_pem.bytes(), issued.private_key_pem.bytes(), chain
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def following(port: int, target: str = "embedder") -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(target, f"127.0.0.1:{port}", health_pb2_grpc.HealthStub, lambda _: None)
    try:
        yield endpoint
    finally:
        await endpoint.close()


@pytest.mark.usefixtures("secured")
async def test_a_caller_without_a_certificate_of_the_authority_is_refused(
    authority: Authority,
) -> None:
    async with serving() as server:
        assert await ask(server.port, credentials_of(authority, root=authority)) == 1
        root_alone = grpc.ssl_channel_credentials(authority.ca.cert_pem.bytes())
        for refused in (None, root_alone, credentials_of(Authority(), root=authority)):
            assert await ask(server.port, refused) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.usefixtures("secured")
async def test_the_mesh_own_clients_and_the_probe_of_raglan_up_have_certificates() -> None:
    async with serving() as server:
        async with following(server.port) as endpoint:
            await until(lambda: endpoint.reach is Reach.SERVING)
            assert (await endpoint.stub.Check(ASK)).status == 1
        program = Program(
            service="embedder",
            replica=1,
            address=f"127.0.0.1:{server.port}",
            argv=(),
            env={},
            log=Path(),
        )
        assert await is_ready(program)


async def test_a_service_whose_certificate_names_another_is_not_called(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in authority.write(tmp_path, "reranker").items():
        monkeypatch.setenv(name, value)
    async with serving("Reranker") as server:
        async with following(server.port) as endpoint:
            await until(lambda: endpoint.reach is Reach.UNREACHABLE)
        async with following(server.port, "reranker") as endpoint:
            await until(lambda: endpoint.reach is Reach.SERVING)


async def test_the_name_in_a_certificate_may_have_a_domain(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tls_files.DOMAIN, "raglan.svc")
    for name, value in authority.write(tmp_path, "embedder.raglan.svc").items():
        monkeypatch.setenv(name, value)
    async with serving() as server, following(server.port) as endpoint:
        await until(lambda: endpoint.reach is Reach.SERVING)


async def test_changed_files_are_taken_by_both_ends_without_a_restart(
    authority: Authority, secured: Path
) -> None:
    """Even those of another authority, after which the old certificates are worth nothing."""
    async with serving() as server, following(server.port) as endpoint:
        await until(lambda: endpoint.reach is Reach.SERVING)
        other = Authority()
        other.write(secured)
        assert (await endpoint.stub.Check(ASK)).status == 1  # on the connection that there is
        old = credentials_of(authority, root=authority)
        assert await ask(server.port, old) is grpc.StatusCode.UNAVAILABLE
        assert await ask(server.port, credentials_of(other, root=other)) == 1
        port = server.port
        await server.stop()
        await until(lambda: endpoint.reach is Reach.UNREACHABLE)
        again = Server(server.service, server.settings.model_copy(update={"port": port}))
        await again.start()
        await until(lambda: endpoint.reach is Reach.SERVING)
        assert (await endpoint.stub.Check(ASK)).status == 1
        await again.stop()


def test_files_that_do_not_fit_leave_the_last_ones_in_force(
    authority: Authority, tmp_path: Path
) -> None:
    files = tls_files.configured(authority.write(tmp_path))
    assert files is not None
    before = files.current()
    other = authority.ca.issue_cert("embedder")
    (tmp_path / "key.pem").write_bytes(other.private_key_pem.bytes())
    assert files.current() is before
    (tmp_path / "cert.pem").unlink()
    assert files.current() is before
    (tmp_path / "cert.pem").write_bytes(other.cert_chain_pems[0].bytes())
    assert files.current().key == other.private_key_pem.bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({tls_files.KEY: ""}, "RAGLAN_TLS_KEY must be set too"),
        ({tls_files.CERT: "/no/such"}, "/no/such cannot be read: No such file or directory."),
        ({tls_files.KEY: "{folder}/ca.pem"}, "are no certificate with its key"),
        ({tls_files.CA: "{folder}/key.pem"}, "holds no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_told_at_the_start(
    secured: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], sentence: str
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value.format(folder=secured))
    with pytest.raises(SettingsError, match=sentence):
        settings.load(GrpcSettings)


def test_another_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    variables = authority.write(tmp_path)
    key = trustme.CA().issue_cert("embedder").private_key_pem.bytes()
    (tmp_path / "key.pem").write_bytes(key)
    assert "are no certificate with its key: key values mismatch" in str(
        tls_files.problem(variables)
    )
