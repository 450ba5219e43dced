"""Readiness of a process: gRPC health for services, /readyz for the gateway."""

from __future__ import annotations

from typing import Final

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.rpc import credentials

from raglan_cli.mesh import GATEWAY, Program

_PROBE_S: Final = 1.0


async def is_ready(program: Program) -> bool:
    """One question, answered within a second; a refusal or silence means no."""
    if program.service == GATEWAY:
        return await _gateway_is_ready(f"http://{program.address}/readyz")
    return await _service_is_ready(program.service, program.address)


async def is_used(url: str, program: Program) -> bool:
    """Return whether the gateway at `url` sees `program` as serving and sends it calls.

    True as well when it does not tell.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=2 * _PROBE_S) as client:
        try:
            services = (await client.get(f"{url}/v1/status")).json().get("services")
        except (httpx.HTTPError, ValueError):
            return False
    return services is None or any(
        s["address"] == program.address and s["state"] == "serving" for s in services
    )


async def not_up_yet(url: str) -> list[str]:
    """The services that the gateway at `url` has not seen serving since it began."""
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_S) as client:
        try:
            response = await client.get(f"{url}/startupz")
            return [] if response.is_success else list(response.json()["waiting_for"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return [GATEWAY]


async def _service_is_ready(service: str, address: str) -> bool:
    # A channel a probe: one that has met a closed port waits before it tries again.
    # Without the option it would follow http_proxy, which does not lead to this machine's loopback.
    options = (("grpc.enable_http_proxy", 0),)
    async with credentials.channel(address, service=service, options=options) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        try:
            reply = await check(health_pb2.HealthCheckRequest(), timeout=_PROBE_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def _gateway_is_ready(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=_PROBE_S) as client:
        try:
            return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False
