"""`/metrics` of a service: its registry over HTTP, on a port of its own."""

from __future__ import annotations

import threading
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from raglan.errors import Unavailable

SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0),
)
"""Buckets of a histogram of durations: half a millisecond to two minutes."""


class Endpoint:
    """Serves a registry from a thread of its own between `start` and `stop`."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Args:
        port: 0 takes a free one.
        """
        self.port = port
        """Where it listens, once started."""
        self._registry = registry
        self._host = host
        self._server: tuple[WSGIServer, threading.Thread] | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: the port is taken.
        """
        try:
            self._server = start_http_server(self.port, self._host, self._registry)
        except OSError as error:
            raise Unavailable(
                f"{self._host}:{self.port} cannot be listened on for metrics: {error}"
            ) from error
        self.port = self._server[0].server_port

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join(5)
            self._server = None
