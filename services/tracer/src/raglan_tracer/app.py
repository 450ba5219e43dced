"""The composition root: settings in, the service out."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from raglan.cross_origin import CrossOriginPolicy
from raglan.rpc.replicas import Replicas
from raglan.rpc.server import Service
from raglan.settings import listed
from raglan.telemetry.metrics import Endpoint, OnLoop
from raglan.v1 import traces_pb2_grpc

from raglan_tracer.collection import Collector
from raglan_tracer.metrics import families
from raglan_tracer.receiver import Listener, Receiver
from raglan_tracer.recorder import TraceRecorder
from raglan_tracer.sampler import TailSampler
from raglan_tracer.servicer import TracerServicer
from raglan_tracer.settings import TracerSettings
from raglan_tracer.store import TraceStore

_COLLECTED: Final = ("embedder", "retriever", "reranker", "generator", "ingester")
"""Services that are asked for their spans. A gateway delivers its own."""


def build(settings: TracerSettings) -> Service:
    """Assemble the service. Call inside a running event loop."""
    metrics = Endpoint.of(settings)
    replicas = [
        Replicas(name, getattr(settings, f"{name}_address"), traces_pb2_grpc.TraceServiceStub)
        for name in _COLLECTED
    ]
    recorder = TraceRecorder(
        TraceStore(
            settings.data_dir / "traces.sqlite" if settings.traces_kept else None,
            newest=settings.traces_kept,
            max_bytes=settings.traces_max_bytes,
        ),
        TailSampler(settings.traces_share),
        Collector(lambda: [each for service in replicas for each in service.all]),
        max_spans=settings.trace_max_spans,
        keeps=settings.traces_kept > 0,
    )
    cross_origin = CrossOriginPolicy(
        listens_on=settings.otlp_host,
        allowed_hosts=listed(settings.allowed_hosts),
        service="tracer",
    )
    receiver = Receiver(recorder.receive, cross_origin)
    listener = Listener(receiver, settings.otlp_host, settings.otlp_port)
    servicer = TracerServicer(recorder, metrics_port=lambda: metrics.port)

    async def start() -> None:
        await recorder.start()
        listener.start()
        metrics.registry.register(OnLoop(lambda: families(recorder, receiver)))

    async def close() -> None:
        await listener.close()
        await recorder.close()
        await asyncio.gather(*(service.close() for service in replicas))

    def register(server: Any) -> None:
        traces_pb2_grpc.add_TracerServiceServicer_to_server(servicer, server)

    return Service(
        name="raglan.v1.TracerService",
        register=register,
        start=start,
        close=close,
        metrics=metrics,
    )
