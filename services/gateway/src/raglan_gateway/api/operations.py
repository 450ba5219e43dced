"""`/healthz`, `/startupz`, `/readyz`, `/metrics`, `/v1/status`: for those who run the mesh."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import raglan
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel
from raglan import tenancy
from raglan.resilience.breaker import State
from raglan.rpc.addresses import format_address
from raglan.rpc.endpoint import Reach
from raglan.v1 import common_pb2
from raglan.v1.revision import REVISION

from raglan_gateway.degradation import current_level
from raglan_gateway.mesh import TRACER, Mesh, ReplicaStatus
from raglan_gateway.metrics import Metrics
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.shared.redis_link import RedisLink

REQUIRED: Final = "retriever"
"""Without it no query can be answered; every other service has a fallback."""


_BEST_FIRST: Final = (Reach.SERVING, Reach.NOT_SERVING, Reach.CONNECTING, Reach.UNREACHABLE)


class Alive(BaseModel):
    """The process runs."""

    status: str = "ok"


class Started(BaseModel):
    """Return whether every service has been up once since this gateway began."""

    started: bool
    waiting_for: list[str]
    """Services that this gateway has not seen serving yet."""


class Ready(BaseModel):
    """Readiness: whether queries are answered, the degradation level, and each service's state."""

    ready: bool
    draining: bool = False
    """True while this gateway shuts down: use another one."""

    rung: str
    """The degradation level of the mesh; "full" lacks nothing."""
    means: str
    dependencies: dict[str, str]
    """The best state among a service's replicas: serving, not_serving, connecting, unreachable."""


class DeviceUse(BaseModel):
    """A GPU that a model runs on. Times are in seconds, and 0 where they were not taken."""

    name: str
    """As in the settings, e.g. "cuda:0"."""
    model: str
    uuid: str
    memory_bytes: int
    used_bytes: int
    """Held by the model."""
    batch_s: float
    """One batch of `batch_tokens` through the model."""
    batch_tokens: int
    matrix_s: float
    """The model's largest matrix times that batch, on the GPU."""
    cpu_matrix_s: float
    """The same on the CPU."""


class Dependency(BaseModel):
    """A server outside of the mesh that a service needs."""

    name: str
    reachable: bool
    problem: str | None = None
    ms: float = 0
    """Time of the last look."""


class ServiceStatus(BaseModel):
    """One process of the mesh."""

    service: str
    address: str
    state: str
    breaker: str | None = None
    in_flight: int | None = None
    pid: int | None = None
    version: str | None = None
    engine: str | None = None
    model: str | None = None
    revision: str | None = None
    dimension: int | None = None
    device: str | None = None
    dtype: str | None = None
    limits: dict[str, int] = {}
    outputs: list[str] = []
    confinement: list[str] = []
    """Of an ingester's parser processes; without "landlock" they can read its user's files."""
    problems: list[str] = []
    """Partial failures of a running service, such as damaged collections; a sentence each."""
    metrics_url: str | None = None
    device_asked: str | None = None
    """The device that the settings ask for."""
    devices: list[DeviceUse] = []
    """The GPUs that its model runs on."""
    driver: str | None = None
    """NVIDIA driver of its machine, whether it can use it or not."""
    dependencies: list[Dependency] = []
    clock_skew_ms: float | None = None
    """By how much its clock is ahead of this gateway's, at least."""
    wire_revision: int | None = None
    """Names in the contracts that it was built with."""


class Targets(BaseModel):
    """Scrape targets of one process, with its labels."""

    targets: list[str]
    labels: dict[str, str]


class Status(BaseModel):
    """The mesh as seen from this gateway."""

    version: str
    time: float
    """This gateway's clock, in seconds since 1970."""
    services: list[ServiceStatus]


def router(
    mesh: Mesh, redis: RedisLink | None, settings: GatewaySettings, metrics: Metrics
) -> APIRouter:
    """The routes of operations."""
    routes = APIRouter(tags=["operations"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz")
    async def alive() -> Alive:
        """Liveness: the event loop turns."""
        return Alive()

    @routes.head("/startupz", include_in_schema=False)
    @routes.get("/startupz", response_model=Started, responses={503: {"model": Started}})
    async def started() -> Any:
        """Startup: 200 once every service has been up, and from then on."""
        body = _started(mesh)
        return JSONResponse(body.model_dump(), status_code=200 if body.started else 503)

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
    async def ready(request: Request) -> Any:
        """Readiness: 200 when queries can be answered, with the state of each dependency."""
        body = _ready(mesh, redis, draining=request.app.state.lifecycle.draining)
        return JSONResponse(body.model_dump(), status_code=200 if body.ready else 503)

    @routes.get("/metrics", response_class=Response)
    async def prometheus(request: Request) -> Response:
        """Metrics in Prometheus' text format, or as OpenMetrics where the Accept header asks."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Thousands of lines take longer than the loop may stand still.
        body = await asyncio.to_thread(encode, metrics.registry)
        return Response(body, headers={"Content-Type": content_type})

    @routes.get("/metrics/targets")
    async def targets(request: Request) -> list[Targets]:
        """Every process of the mesh to scrape, in the form of Prometheus' `http_sd_configs`."""
        peers = await asyncio.to_thread(_peers, settings.peers_file)
        gateways = peers if len(peers) > 1 else [request.url.netloc]
        others = [
            Targets(targets=[urlsplit(each.metrics_url).netloc], labels={"component": each.service})
            for each in map(_status, await mesh.query_replicas())
            if each.metrics_url
        ]
        return [
            *(Targets(targets=[each], labels={"component": "gateway"}) for each in gateways),
            *others,
        ]

    @routes.get("/v1/status")
    async def status() -> Status:
        """Each process: what it is, where, how, and what it runs. Refused to a tenant's key."""
        tenancy.refuse_tenants("The states of processes")
        others = map(_status, await mesh.query_replicas())
        return Status(
            version=raglan.__version__,
            time=time.time(),
            services=[_itself(settings, redis), *others],
        )

    return routes


def _started(mesh: Mesh) -> Started:
    waiting_for = [
        name
        for name, pool in mesh.pools.items()
        if name != TRACER and not pool.replicas.was_serving
    ]
    return Started(started=not waiting_for, waiting_for=waiting_for)


def _ready(mesh: Mesh, redis: RedisLink | None, *, draining: bool) -> Ready:
    states: dict[str, str] = dict.fromkeys(mesh.pools, Reach.UNREACHABLE)
    for seen in mesh.describe_replicas():
        best = min(Reach(states[seen.service]), seen.state, key=_BEST_FIRST.index)
        states[seen.service] = best
    away = [name for name, pool in mesh.pools.items() if not pool.available]
    if redis is not None:
        states["redis"] = Reach.SERVING if redis.state is State.CLOSED else Reach.UNREACHABLE
        away += [] if redis.state is State.CLOSED else ["redis"]
    level = current_level(away)
    return Ready(
        ready=mesh.pools[REQUIRED].available and not draining,
        draining=draining,
        rung=level.name,
        means=level.means,
        dependencies=states,
    )


def _itself(settings: GatewaySettings, redis: RedisLink | None) -> ServiceStatus:
    address = format_address(settings.host, settings.port)
    return ServiceStatus(
        service="gateway",
        address=address,
        state="serving",
        pid=os.getpid(),
        version=raglan.__version__,
        metrics_url=f"http://{address}/metrics",
        dependencies=[] if redis is None else [_redis_state(redis)],
        wire_revision=REVISION,
    )


def _status(seen: ReplicaStatus) -> ServiceStatus:
    reached = ServiceStatus(
        service=seen.service,
        address=seen.address,
        state=seen.state,
        breaker=seen.breaker,
        in_flight=seen.in_flight,
    )
    if (info := seen.info) is None:
        return reached
    return reached.model_copy(
        update={
            "pid": info.pid,
            "version": info.version,
            "engine": info.engine or None,
            "model": info.model.id or None,
            "revision": info.model.revision or None,
            "dimension": info.model.dimension or None,
            "device": info.device or None,
            "dtype": info.dtype or None,
            "limits": dict(info.limits),
            "outputs": list(info.outputs),
            "confinement": list(info.confinement),
            "problems": list(info.problems),
            "metrics_url": _metrics_url(seen.address, info.metrics_port),
            "device_asked": info.device_asked or None,
            "devices": [_device_use(each) for each in info.devices],
            "driver": info.driver or None,
            "dependencies": [_dependency(each) for each in info.dependencies],
            "clock_skew_ms": round(seen.clock_skew_s * 1e3, 1) if info.time_unix_nano else None,
            "wire_revision": info.wire_revision or None,
        }
    )


def _device_use(use: common_pb2.DeviceUse) -> DeviceUse:
    names = DeviceUse.model_fields
    return DeviceUse.model_validate({name: getattr(use, name) for name in names})


def _dependency(seen: common_pb2.Dependency) -> Dependency:
    return Dependency(
        name=seen.name,
        reachable=seen.reachable,
        problem=seen.problem or None,
        ms=round(seen.seconds * 1e3, 1),
    )


def _redis_state(redis: RedisLink) -> Dependency:
    """Describe Redis by what a task of the link found last."""
    if redis.state is State.CLOSED:
        return Dependency(name="redis", reachable=True)
    return Dependency(name="redis", reachable=False, problem=redis.problem)


def _peers(file: Path | None) -> list[str]:
    """Own addresses of the gateways that share a socket; none where there is no such file."""
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _metrics_url(address: str, port: int) -> str | None:
    """Return the metrics URL of the process at `address`; None where it has none."""
    return f"http://{address.rpartition(':')[0]}:{port}/metrics" if port else None
