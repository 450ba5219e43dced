"""`raglan-health ADDRESS`: whether one process is well, as an exit status for container probes.

It runs every few seconds beside each service, so it loads the parts of gRPC that it calls and
nothing else of the mesh.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
from typing import Any, Final

EXIT_WELL: Final = 0
EXIT_UNWELL: Final = 1


def problem(address: str, *, service: str = "", live: bool = False, timeout_s: float = 3) -> str:
    """Ask the process at `address`; return what is wrong, empty when it is well.

    Args:
        address: "host:port" of a gRPC server, or an http:// address that replies with 200.
        service: short name of the service, "embedder"; by it mutual TLS checks the certificate.
        live: ask for forward progress, not for readiness.
        timeout_s: longest wait for the reply.
    """
    if address.startswith("http://"):
        return _http_problem(address, timeout_s)
    return _grpc_problem(address, service, live=live, timeout_s=timeout_s)


def _http_problem(url: str, timeout_s: float) -> str:
    # No proxy of the environment: the process asked is in this container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        reply = error.read(2_000).decode("utf-8", "replace")
        return f"{url} replies with status {error.code}: {reply}"
    except OSError as error:
        return f"{url} cannot be reached: {getattr(error, 'reason', error)}."


def _grpc_problem(address: str, service: str, *, live: bool, timeout_s: float) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from raglan.rpc.health_service import LIVE, name_of

    options = (("grpc.enable_http_proxy", 0),)
    channel = grpc.insecure_channel(address, options=options)
    if os.environ.get("RAGLAN_TLS_CERT"):
        # Its imports take longer than the call, so only where it is needed.
        from raglan.rpc import credentials
        from raglan.tls_files import TlsError

        if not service:
            return f"RAGLAN_TLS_CERT is set: name the service at {address}, --service embedder."
        try:
            channel = credentials.blocking_channel(address, service=service, options=options)
        except TlsError as error:
            return str(error)
    asked = LIVE if live else name_of(service) if service else ""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    with channel:
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=asked), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{address} gives no reply: {error.code().name}, {error.details()}"
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}."


def main() -> None:
    """Exit with 0 when the process is well, else with 1 and a line that says why."""
    parser = argparse.ArgumentParser(prog="raglan-health", description=__doc__)
    parser.add_argument("address", help="host:port, or http://host:port/readyz of a gateway")
    parser.add_argument("--service", default="", help="short name, such as embedder")
    parser.add_argument("--live", action="store_true", help="ask for progress, not for readiness")
    parser.add_argument("--timeout", type=float, default=3, metavar="SECONDS")
    given = parser.parse_args()
    found = problem(given.address, service=given.service, live=given.live, timeout_s=given.timeout)
    sys.stderr.write(f"{found}\n" if found else "")
    raise SystemExit(EXIT_UNWELL if found else EXIT_WELL)
