"""`/v1/status`: what a replica says of itself."""

import pytest
from raglan.resilience.breaker import State
from raglan.rpc.endpoint import Reach
from raglan.v1 import common_pb2
from raglan_gateway.api.operations import _status
from raglan_gateway.mesh import ReplicaStatus, clock_skew_s


def test_problems_that_a_service_names_are_in_the_status() -> None:
    info = common_pb2.ServiceInfo(problems=["Collection 'notes' is damaged."])
    seen = ReplicaStatus("retriever", "[::1]:7102", Reach.SERVING, State.CLOSED, 0, info)
    assert _status(seen).problems == ["Collection 'notes' is damaged."]


def test_devices_dependencies_and_clock_are_in_the_status():
    info = common_pb2.ServiceInfo(
        device_asked="cuda:0",
        driver="570.1",
        devices=[common_pb2.DeviceUse(name="cuda:0", model="NVIDIA H200", batch_s=0.25)],
        dependencies=[common_pb2.Dependency(name="qdrant", problem="It is away.")],
        time_unix_nano=1,
        wire_revision=7,
    )
    seen = ReplicaStatus(
        "retriever", "[::1]:7102", Reach.SERVING, State.CLOSED, 0, info, clock_skew_s=-1.5
    )
    told = _status(seen)
    assert (told.device_asked, told.driver, told.wire_revision) == ("cuda:0", "570.1", 7)
    assert (told.devices[0].model, told.devices[0].batch_s) == ("NVIDIA H200", 0.25)
    assert (told.dependencies[0].reachable, told.dependencies[0].problem) == (False, "It is away.")
    assert told.clock_skew_ms == -1500


def test_a_service_that_tells_no_time_has_no_skew():
    seen = ReplicaStatus(
        "retriever", "a:1", Reach.SERVING, State.CLOSED, 0, common_pb2.ServiceInfo()
    )
    assert _status(seen).clock_skew_ms is None


@pytest.mark.parametrize(
    ("theirs_ns", "skew_s"),
    [(15 * 10**9, 0), (10 * 10**9, 0), (8 * 10**9, -2), (23 * 10**9, 3), (0, 0)],
)
def test_a_clock_is_off_by_what_the_duration_of_the_call_cannot_explain(theirs_ns, skew_s):
    assert clock_skew_s(theirs_ns, 10 * 10**9, 20 * 10**9) == skew_s
