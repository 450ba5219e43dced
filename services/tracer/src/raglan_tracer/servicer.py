"""The rpcs of `raglan.v1.TracerService`: wire in, recorder, wire out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from raglan.errors import InvalidInput, NotFound
from raglan.rpc.service_info import service_info
from raglan.v1 import common_pb2, traces_pb2, traces_pb2_grpc

from raglan_tracer.collection import Reply
from raglan_tracer.document import list_json, trace_json
from raglan_tracer.recorder import TraceRecorder

Context = grpc.aio.ServicerContext[Any, Any]

_CHUNK_BYTES: Final = 1024 * 1024
_ID_BYTES: Final = 16


class TracerServicer(traces_pb2_grpc.TracerServiceServicer):
    """Each rpc is one call of the recorder."""

    def __init__(self, recorder: TraceRecorder, *, metrics_port: Callable[[], int]) -> None:
        """Serve what `recorder` has.

        Args:
            recorder: of the traces; not owned.
            metrics_port: where the process shows its metrics; 0 where it does not.
        """
        self._recorder = recorder
        self._metrics_port = metrics_port

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        """Return identity and version."""
        engine = "memory" if self._recorder.store.in_memory else "sqlite"
        facts = common_pb2.ServiceInfo(engine=engine)
        return service_info("tracer", facts, metrics_port=self._metrics_port())

    async def Report(
        self, request: traces_pb2.ReportRequest, context: Context
    ) -> traces_pb2.ReportResponse:
        """Decide which of these traces are kept, and take in the spans that were wanted."""
        await self._recorder.add_reported(_reply(request.spans))
        kept = [
            outcome.trace_id
            for outcome in request.outcomes
            if len(outcome.trace_id) == _ID_BYTES and self._recorder.record_outcome(outcome)
        ]
        wanted = dict.fromkeys((*kept, *self._recorder.due_soon()))
        return traces_pb2.ReportResponse(wanted=wanted)

    async def ListTraces(
        self, request: traces_pb2.ListTracesRequest, context: Context
    ) -> traces_pb2.ListTracesResponse:
        """List the stored traces that match."""
        found = await self._recorder.newest(request)
        in_memory = self._recorder.store.in_memory
        document = await asyncio.to_thread(list_json, found, request.limit, in_memory=in_memory)
        return traces_pb2.ListTracesResponse(document=document)

    async def GetTrace(
        self, request: traces_pb2.GetTraceRequest, context: Context
    ) -> AsyncIterator[traces_pb2.TraceChunk]:
        """One trace, in pieces that fit into a message."""
        if len(request.trace_id) != _ID_BYTES:
            raise InvalidInput(f"A trace id has {len(request.trace_id)} bytes, not {_ID_BYTES}.")
        found = await self._recorder.find(
            request.trace_id, _reply(request.spans), running=request.running
        )
        if found is None:
            raise NotFound(
                f"There is no trace {request.trace_id.hex()}. Those of errors, of degraded, "
                "retried and slow requests and a share of the rest are kept; others can be had for "
                "two minutes (RAGLAN_TRACER_TRACES_SHARE, RAGLAN_TRACER_TRACES_KEPT)."
            )
        document = await asyncio.to_thread(trace_json, found.summary, found.spans)
        for start in range(0, len(document), _CHUNK_BYTES):
            chunk = document[start : start + _CHUNK_BYTES]
            yield traces_pb2.TraceChunk(document=chunk, size=len(document))


def _reply(spans: traces_pb2.CollectResponse) -> Reply:
    """Convert the spans that a gateway delivers of its own.

    Raises:
        InvalidInput: they cannot be read.
    """
    try:
        data = TracesData.FromString(spans.spans)
    except DecodeError:
        raise InvalidInput("The spans are no TracesData.") from None
    return Reply(data, frozenset(spans.incomplete))
