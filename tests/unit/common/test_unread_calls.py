"""Calls that arrive faster than a service reads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.deadline import Deadline
from raglan.errors import Overloaded
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import common_pb2, generator_pb2_grpc

ASK = common_pb2.GetInfoRequest()
UNREAD = 8
LIMIT_S = 20


class Servicer(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self) -> None:
        self.calls = 0

    async def GetInfo(self, request: Any, context: Any) -> common_pb2.ServiceInfo:
        self.calls += 1
        return common_pb2.ServiceInfo(service="generator")


async def serving() -> tuple[Server, Servicer]:
    servicer = Servicer()
    service = Service(
        name="raglan.v1.GeneratorService",
        register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, s),
    )
    settings = GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0, max_unread_calls=UNREAD)
    server = Server(service, settings)
    await server.start()
    return server, servicer


def block_until(condition: Callable[[], bool]) -> None:
    """Hold the event loop meanwhile."""
    until = time.monotonic() + LIMIT_S / 2
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.loop_stall_s(LIMIT_S)
async def test_what_is_not_read_in_time_is_refused_before_it_costs_anything() -> None:
    """While the service's loop stands still, which is the test's own."""
    server, servicer = await serving()
    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        await asyncio.to_thread(stub.GetInfo, ASK, timeout=LIMIT_S)
        futures = [stub.GetInfo.future(ASK, timeout=LIMIT_S) for _ in range(100)]
        block_until(lambda: sum(each.done() for each in futures) >= 100 - UNREAD - 2)
        assert servicer.calls == 1
        # Another method has a queue of its own: who asks for the service's health is not refused.
        health = health_pb2_grpc.HealthStub(channel)
        asked = health.Check.future(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        reply = await asyncio.to_thread(asked.result)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.to_thread(lambda: [each.code() for each in futures])
    refused = [each for each in futures if each.code() is not grpc.StatusCode.OK]
    assert servicer.calls == 1 + len(futures) - len(refused)
    assert servicer.calls > UNREAD / 2
    await server.stop()


async def test_refusing_unread_calls_opens_no_breaker() -> None:
    """A refusal of unread calls opens no breaker and says when to come back."""
    server, _ = await serving()
    address = f"127.0.0.1:{server.port}"
    pool = EndpointPool("generator", address, generator_pb2_grpc.GeneratorServiceStub)
    try:
        deadline = Deadline.after(LIMIT_S)
        await pool.call("GetInfo", ASK, deadline=deadline)
        refused: list[BaseException] = []
        while not refused:
            asked = [pool.call("GetInfo", ASK, deadline=deadline, retry=False) for _ in range(200)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            refused = [each for each in outcomes if isinstance(each, BaseException)]
        for error in refused:
            assert isinstance(error, Overloaded)
            assert error.retry_after_s
        assert pool.replicas.all[0].breaker.failures == 0
    finally:
        await pool.close()
        await server.stop()
