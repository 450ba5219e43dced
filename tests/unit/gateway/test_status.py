"""`/v1/status`: what a replica says of itself."""

from raglan.resilience.breaker import State
from raglan.rpc.endpoint import Reach
from raglan.v1 import common_pb2
from raglan_gateway.api.operations import _status
from raglan_gateway.mesh import ReplicaStatus


def test_problems_that_a_service_names_are_in_the_status() -> None:
    info = common_pb2.ServiceInfo(problems=["Collection 'notes' is damaged."])
    seen = ReplicaStatus("retriever", "[::1]:7102", Reach.SERVING, State.CLOSED, 0, info)
    assert _status(seen).problems == ["Collection 'notes' is damaged."]
