"""The servicer of a model that takes a while to load."""

from __future__ import annotations

import os
import time
from typing import Any, cast

import pytest
import raglan
from raglan.errors import Unavailable
from raglan.rpc.service_info import ModelServicer
from raglan.telemetry import gpu
from raglan.v1 import common_pb2
from raglan.v1.revision import REVISION

ASK = common_pb2.GetInfoRequest()
CONTEXT = cast("Any", None)


class Servicer(ModelServicer[str]):
    service = "embedder"


async def test_calls_are_refused_until_the_model_has_loaded() -> None:
    servicer = Servicer()
    with pytest.raises(Unavailable, match="embedder is still loading") as refused:
        await servicer.GetInfo(ASK, CONTEXT)
    assert refused.value.retry_after_s == 1


async def test_a_loaded_servicer_describes_process_and_model() -> None:
    servicer = Servicer()
    facts = common_pb2.ServiceInfo(engine="null", device="cpu")
    servicer.loaded("domain", facts, metrics_port=9, seconds=0.5)
    assert servicer._ready() == "domain"
    info = await servicer.GetInfo(ASK, CONTEXT)
    assert abs(info.time_unix_nano - time.time_ns()) < 10e9
    info.time_unix_nano = 0
    assert info == common_pb2.ServiceInfo(
        service="embedder",
        version=raglan.__version__,
        pid=os.getpid(),
        metrics_port=9,
        engine="null",
        device="cpu",
        driver=gpu.driver_version(),
        wire_revision=REVISION,
    )
