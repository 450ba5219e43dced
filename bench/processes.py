"""Servers as processes of their own: started, waited for, stopped, and what they cost."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

_START_S = 300.0
"""Longest a server may take to start; the first start of an encoder also exports its model."""

_STOP_S = 15.0
_LAST_LINES = 30


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    start_s: float = _START_S,
) -> Iterator[int]:
    """A process from `ready` until the block ends; its pid.

    Args:
        name: What errors call it.
        command: Program and arguments.
        environment: Variables besides this process's own.
        ready: Whether it can be used now.
        start_s: Longest it may take to start.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the last lines of its output.
    """
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            limit = time.monotonic() + start_s
            while not ready():
                if running.poll() is not None or time.monotonic() > limit:
                    output.seek(0)
                    last = "".join(output.readlines()[-_LAST_LINES:])
                    raise RuntimeError(f"{name} ended or was not up in {start_s:.0f} s:\n{last}")
                time.sleep(0.1)
            yield running.pid
        finally:
            running.terminate()
            try:
                running.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Return True if an HTTP server answers its health check."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serving(port: int, service: str) -> bool:
    """Return True if a gRPC server reports `service` as SERVING."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=2
            )
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def cpu_seconds(pid: int, *, children: bool = True) -> float:
    """Processor time that the process, and its children, have taken."""
    family = _family(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (family if children else family[:1]))


def resident_mb(pid: int) -> tuple[float, float]:
    """Memory that the process holds, and that its children do, MB."""
    own, *children = (each.memory_info().rss / 2**20 for each in _family(pid))
    return own, sum(children)


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []
