"""`TraceService`: the recent spans of this process, by trace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from raglan.errors import InvalidInput
from raglan.telemetry import otlp, tracing
from raglan.v1 import traces_pb2, traces_pb2_grpc

NAME: Final = "raglan.v1.TraceService"
MAX_TRACES: Final = 256
"""Trace ids of one call."""

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
_ID_BYTES: Final = 16
_AT_ONCE: Final = 50
"""Spans encoded before others get their turn on the loop: less than a millisecond."""


class TraceServicer(traces_pb2_grpc.TraceServiceServicer):
    """Answers from what the process traces with at the time."""

    def __init__(self, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._max_reply_bytes = max_reply_bytes

    async def Collect(self, request: traces_pb2.CollectRequest, context: Any) -> Any:
        """Their ended spans that are still here; a trace that is unknown has none."""
        asked = list(dict.fromkeys(request.trace_ids))
        if len(asked) > MAX_TRACES:
            raise InvalidInput(f"{len(asked)} traces are asked for; the limit is {MAX_TRACES}.")
        if wrong := next((each for each in asked if len(each) != _ID_BYTES), None):
            raise InvalidInput(f"A trace id has {len(wrong)} bytes; it must have {_ID_BYTES}.")
        return await collect(asked, self._max_reply_bytes)


async def collect(
    trace_ids: Iterable[bytes], max_bytes: int = MAX_REPLY_BYTES
) -> traces_pb2.CollectResponse:
    """The spans of these traces that this process has, and of which it lacks some."""
    recent = tracing.installed().recent
    parts: list[bytes] = []
    size = 0
    incomplete: list[bytes] = []
    for trace_id in trace_ids:
        spans, had_more = recent.of(int.from_bytes(trace_id, "big"))
        for start in range(0, len(spans), _AT_ONCE):
            part = otlp.encode(spans[start : start + _AT_ONCE], packed=True)
            if size + len(part) > max_bytes:
                had_more = True
                break
            parts.append(part)
            size += len(part)
            await asyncio.sleep(0)
        if had_more:
            incomplete.append(trace_id)
    # Messages that are written one after the other are read as one that holds them all.
    return traces_pb2.CollectResponse(spans=b"".join(parts), incomplete=incomplete)
