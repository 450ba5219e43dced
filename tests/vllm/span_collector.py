"""An OpenTelemetry collector that remembers the spans it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port of this machine."""

    endpoint: str = ""
    trace_ids: set[str] = field(default_factory=set)

    def Export(self, request: Any, context: Any) -> Any:
        """Take spans in."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.trace_ids |= {span.trace_id.hex() for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def running() -> Iterator[Collector]:
    """A collector, until the end of the block."""
    server = grpc.server(ThreadPoolExecutor(2))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    yield collector
    server.stop(grace=None)
