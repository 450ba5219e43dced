"""Faults on demand: calls that come late, fail, hang or break off, as RAGLAN_FAULTS says.

For rehearsals, and for the tests of what the mesh does then. Without the variable a channel has no
interceptors at all, so that nothing is paid for it. Health checks are never touched: a slow or
failing replica is one that still says that it serves.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc.aio import ClientCallDetails

from raglan import fault_plan
from raglan.fault_plan import VARIABLE, Fault, Plan

log: Final = structlog.get_logger()

_EXEMPT: Final = ("/grpc.health.", "/grpc.reflection.")
_LOOK_EVERY_S: Final = 0.05
_SAID: Final = f"A fault was injected here ({VARIABLE})."


def interceptors(target: str, address: str) -> list[grpc.aio.ClientInterceptor]:
    """Build the fault interceptors of a channel to `target` ("embedder") at `address`.

    Raises:
        ValueError: the variable holds something that is no plan.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return []
    faults = _Faults(_source(value), target, address)
    return [_Unary(faults), _Upload(faults), _Stream(faults)]


class _Source:
    """The plan in force; that of a file is read again when the file changes."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._path = Path(value[1:]) if value.startswith("@") else None
        self._seen = self._version()
        self._looked_at = time.monotonic()
        self.plan = fault_plan.parse(fault_plan.read(value))
        self._announce()

    def refresh(self) -> Plan:
        """The plan now. A file that has become unreadable leaves the last one in force."""
        now = time.monotonic()
        if self._path is None or now < self._looked_at + _LOOK_EVERY_S:
            return self.plan
        self._looked_at = now
        if (version := self._version()) != self._seen:
            self._seen = version
            try:
                self.plan = fault_plan.parse(fault_plan.read(self._value))
            except ValueError as error:
                log.error("the faults stay as they were", reason=str(error))
            else:
                self._announce()
        return self.plan

    def _version(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _announce(self) -> None:
        said = {
            target: fault.model_dump(exclude_defaults=True)
            for target, fault in self.plan.faults.items()
        }
        state = "ON: calls will fail or come late on purpose" if said else "off, and can be set"
        log.warning(f"{VARIABLE} is {state}", faults=said, seed=self.plan.seed)


_sources: dict[str, _Source] = {}


def _source(value: str) -> _Source:
    """One for all channels of the process, so that it speaks once."""
    if value not in _sources:
        _sources[value] = _Source(value)
    return _sources[value]


class _Faults:
    """Faults for the calls to one endpoint."""

    def __init__(self, source: _Source, target: str, address: str) -> None:
        self._source = source
        self._of = (target, address)
        self._plan: Plan | None = None
        self._chance = random.Random()  # noqa: S311 - replaced with the first plan

    def draw(self, method: bytes | str) -> tuple[Fault, float] | None:
        """The fault that hits this call, and the seconds that it waits first."""
        name = method.decode() if isinstance(method, bytes) else method
        if name.startswith(_EXEMPT):
            return None
        plan = self._source.refresh()
        if plan is not self._plan:
            self._plan, self._chance = plan, plan.chance(*self._of)
        fault = plan.fault(*self._of)
        if fault is None or self._chance.uniform(0, 100) >= fault.percent:
            return None
        return fault, fault.delay_s(self._chance)


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, faults: _Faults) -> None:
        self._faults = faults

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        drawn = self._faults.draw(client_call_details.method)
        if drawn is not None:
            client_call_details = await _suffered(*drawn, client_call_details)
        return await continuation(client_call_details, request)


class _Upload(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, faults: _Faults) -> None:
        self._faults = faults

    async def intercept_stream_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        drawn = self._faults.draw(client_call_details.method)
        if drawn is not None:
            client_call_details = await _suffered(*drawn, client_call_details)
        return await continuation(client_call_details, request_iterator)


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, faults: _Faults) -> None:
        self._faults = faults

    async def intercept_unary_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        drawn = self._faults.draw(client_call_details.method)
        if drawn is None:
            return await continuation(client_call_details, request)
        client_call_details = await _suffered(*drawn, client_call_details)
        call = await continuation(client_call_details, request)
        cut_after = drawn[0].cut_after
        return call if cut_after is None else _cut(call, cut_after)


async def _suffered(fault: Fault, wait_s: float, details: ClientCallDetails) -> ClientCallDetails:
    """Wait, stall or fail as `fault` says; the details of the call with the time that is left.

    Raises:
        grpc.aio.AioRpcError: as the service or a dead connection would have it.
    """
    timeout = details.timeout
    if fault.stall or (timeout is not None and wait_s >= timeout):
        await asyncio.sleep(_for_ever() if timeout is None else timeout)
        raise _error("DEADLINE_EXCEEDED")
    if wait_s:
        await asyncio.sleep(wait_s)
    if fault.error is not None:
        raise _error(fault.error)
    if timeout is None or not wait_s:
        return details
    return ClientCallDetails(
        details.method,
        timeout - wait_s,
        details.metadata,
        details.credentials,
        details.wait_for_ready,
    )


async def _cut(call: Any, after: int) -> AsyncIterator[Any]:
    """The first `after` messages of `call`, then a lost connection."""
    passed = 0
    try:
        if after:
            async for message in call:
                yield message
                passed += 1
                if passed == after:
                    break
            else:
                return
        raise _error("UNAVAILABLE")
    finally:
        call.cancel()


def _for_ever() -> float:
    """Longer than anybody waits; only a cancel ends it."""
    return 365 * 24 * 3600.0


def _error(status: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode[status], nothing, nothing, details=_SAID)
