"""Replies of `GetInfo`, and the servicer of a model that takes a while to load."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any, Final, Generic, TypeVar

import grpc
import structlog

import raglan
from raglan.errors import Unavailable
from raglan.telemetry import gpu
from raglan.v1 import common_pb2
from raglan.v1.revision import REVISION

log: Final = structlog.get_logger()

Domain = TypeVar("Domain")


def service_info(
    service: str, facts: common_pb2.ServiceInfo, *, metrics_port: int
) -> common_pb2.ServiceInfo:
    """Return `facts` with the fields that are alike in every service filled in.

    Args:
        service: the short name, e.g. "embedder".
        facts: changed in place.
        metrics_port: the port of `/metrics`.
    """
    facts.service = service
    facts.version = raglan.__version__
    facts.pid = os.getpid()
    facts.metrics_port = metrics_port
    facts.time_unix_nano = time.time_ns()
    facts.wire_revision = REVISION
    facts.driver = _driver()
    return facts


@cache
def _driver() -> str:
    return gpu.driver_version()


class ModelServicer(Generic[Domain]):
    """The part of a servicer that waits for a model. Calls are refused until `loaded`."""

    service: str
    """The short name, e.g. "embedder"."""

    def __init__(self) -> None:
        self._domain: Domain | None = None
        self._info = common_pb2.ServiceInfo()

    def loaded(
        self, domain: Domain, facts: common_pb2.ServiceInfo, *, metrics_port: int, seconds: float
    ) -> None:
        """Answer with `domain` from now on.

        Args:
            domain: what calls are handed to.
            facts: see `service_info`.
            metrics_port: the port of `/metrics`.
            seconds: duration of the loading, for the log.
        """
        self._info = service_info(self.service, facts, metrics_port=metrics_port)
        self._domain = domain
        log.info(
            "model loaded",
            model=facts.model.id,
            revision=facts.model.revision,
            engine=facts.engine,
            device=facts.device,
            dtype=facts.dtype,
            streams=facts.limits.get("streams", 0),
            seconds=round(seconds, 2),
        )

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.ServiceInfo:
        """Describe engine, model and limits."""
        self._ready()
        self._info.time_unix_nano = time.time_ns()
        return self._info

    def _ready(self) -> Domain:
        if self._domain is None:
            raise Unavailable(f"The {self.service} is still loading its model.", retry_after_s=1)
        return self._domain
