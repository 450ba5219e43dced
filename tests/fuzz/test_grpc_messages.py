"""Random and broken messages to every method of every service: refused by name, or answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import mesh_process
import proto_messages
import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from raglan.v1 import (
    embedder_pb2,
    generator_pb2,
    ingester_pb2,
    reranker_pb2,
    retriever_pb2,
    traces_pb2,
)

MESSAGES = int(os.environ.get("MESSAGES", "15"))
"""Messages to each method: `make test-fuzz MESSAGES=500`."""
HANG_S = 30
MODULES = {
    "embedder": embedder_pb2,
    "generator": generator_pb2,
    "ingester": ingester_pb2,
    "reranker": reranker_pb2,
    "retriever": retriever_pb2,
    "tracer": traces_pb2,
}
METHODS = [
    pytest.param(service, method, id=f"{service}-{method.containing_service.name}-{method.name}")
    for service, module in MODULES.items()
    for described in module.DESCRIPTOR.services_by_name.values()
    for method in described.methods
]
FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""An error that nobody expected, a process that died, a hang."""

pytestmark = pytest.mark.timeout(120 + MESSAGES)


@pytest.fixture(scope="module")
def channels(mesh: mesh_process.Mesh) -> Iterator[dict[str, grpc.Channel]]:
    addresses = {each["service"]: each["address"] for each in mesh.services()}
    opened = {service: grpc.insecure_channel(addresses[service]) for service in MODULES}
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": "a"})
    yield opened
    for channel in opened.values():
        channel.close()


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_every_message_is_answered(
    channels: dict[str, grpc.Channel], service: str, method: MethodDescriptor
) -> None:
    call = _call(channels[service], method)

    @seed(1)
    @settings(
        max_examples=MESSAGES,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(proto_messages.encoded(method.input_type), min_size=1, max_size=4))
    def send(sent: list[bytes]) -> None:
        code, details = call(sent)
        assert code not in FAULTS, details

    send()


def _call(channel: grpc.Channel, method: MethodDescriptor) -> Any:
    path = f"/{method.containing_service.full_name}/{method.name}"
    uploads = method.client_streaming
    shapes = {False: "unary", True: "stream"}
    make = getattr(channel, f"{shapes[uploads]}_{shapes[method.server_streaming]}")
    stub = make(path, request_serializer=None, response_deserializer=None)

    def call(sent: list[bytes]) -> tuple[grpc.StatusCode, str]:
        try:
            reply = stub(iter(sent) if uploads else sent[0], timeout=HANG_S)
            if method.server_streaming:
                for _ in reply:
                    pass
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    return call
