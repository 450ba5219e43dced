"""Hostile gRPC clients of every service: a status by name, no hang, and nothing is left of them."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import mesh_process
import pytest
from raglan.v1 import common_pb2

STREAMS = int(os.environ.get("STREAMS", "1000"))
"""Calls at once: `make test-fuzz STREAMS=4000`."""
HANG_S = 60
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
SERVICES = {
    "embedder": ("Embedder", "Embed"),
    "generator": ("Generator", "Generate"),
    "ingester": ("Ingester", "WatchJob"),
    "reranker": ("Reranker", "Rerank"),
    "retriever": ("Retriever", "Search"),
    "tracer": ("Tracer", "GetTrace"),
}
STREAMING = {"Generate", "WatchJob", "GetTrace"}
FAULTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}

pytestmark = pytest.mark.timeout(300)


class Service:
    """A service of the mesh as a client sees it."""

    def __init__(self, mesh: mesh_process.Mesh, name: str) -> None:
        self.mesh = mesh
        self.name = name
        found = next(each for each in mesh.services() if each["service"] == name)
        self.address: str = found["address"]
        full, method = SERVICES[name]
        self.path = f"/raglan.v1.{full}Service/"
        self.method = method

    def call(self, channel: grpc.Channel) -> Any:
        """Return the service's main method."""
        shape = "unary_stream" if self.method in STREAMING else "unary_unary"
        return getattr(channel, shape)(self.path + self.method)

    def info(self, channel: grpc.Channel) -> Any:
        """Return the method that describes the service."""
        return channel.unary_unary(self.path + "GetInfo")

    def answers(self) -> None:
        """Check that it serves a plain request."""
        with grpc.insecure_channel(self.address) as channel:
            reply = self.info(channel)(b"", timeout=HANG_S)
        assert common_pb2.ServiceInfo.FromString(reply).ByteSize() > 0

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return len(list(Path(f"/proc/{self.mesh.pid(self.name)}/fd").iterdir()))


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, mesh: mesh_process.Mesh) -> Iterator[Service]:
    """A service that answers before and after, without descriptors more than before."""
    found = Service(mesh, request.param)
    found.answers()
    before, process = found.descriptors(), mesh.pid(found.name)
    yield found
    found.answers()
    assert mesh.pid(found.name) == process
    mesh_process.until(
        lambda: found.descriptors() <= before + 2, within_s=60, what="its descriptors are closed"
    )


def test_bytes_that_are_no_http2(service: Service) -> None:
    host, _, port = service.address.rpartition(":")
    chance = random.Random(1)
    for begun in (b"", PREFACE, PREFACE + SETTINGS, PREFACE[:10], b"GET / HTTP/1.1\r\n\r\n") * 6:
        with socket.create_connection((host, int(port)), timeout=HANG_S) as client:
            client.sendall(begun + chance.randbytes(chance.randrange(1, 500)))
            if chance.random() < 0.5:
                client.settimeout(0.1)
                with suppress(OSError):
                    client.recv(1000)


def test_calls_that_are_cancelled(service: Service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        for number in range(200):
            call = channel.unary_stream(service.path + service.method)
            running = call(b"", timeout=HANG_S)
            if number % 2:
                time.sleep(0.002)
            running.cancel()


def test_many_calls_at_once(service: Service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        running = [service.info(channel).future(b"", timeout=HANG_S) for _ in range(STREAMS)]
        codes = {each.code() for each in running}
    assert not codes & (FAULTS | {grpc.StatusCode.DEADLINE_EXCEEDED}), codes


def test_many_uploads_that_never_end(service: Service) -> None:
    """Of streams whose other half is open, also where the method takes one message."""
    with grpc.insecure_channel(service.address) as channel:
        upload = channel.stream_unary(
            service.path + ("Submit" if service.name == "ingester" else service.method)
        )
        running = [upload.future(_slowly(5), timeout=HANG_S) for _ in range(20)]
        running += [upload.future(_slowly(0.3), timeout=HANG_S) for _ in range(20)]
        late = {each.code() for each in running[20:]}
        for each in running[:20]:
            each.cancel()
    assert not late & FAULTS, late


@pytest.mark.parametrize(("many", "long"), [(2_000, 4), (10, 100_000), (1, 1_000_000)])
def test_a_flood_of_metadata(service: Service, many: int, long: int) -> None:
    flood = tuple((f"x-{number}", "y" * long) for number in range(many))
    with grpc.insecure_channel(service.address) as channel:
        code = _code(lambda: service.info(channel)(b"", timeout=HANG_S, metadata=flood))
    assert code not in FAULTS, code


def test_a_message_above_the_limit(service: Service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        code = _code(lambda: service.info(channel)(bytes(17 * 2**20), timeout=HANG_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def _slowly(seconds: float) -> Iterator[bytes]:
    yield b""
    time.sleep(seconds)


def _code(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
