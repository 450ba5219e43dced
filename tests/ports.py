"""Free ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 10_000, 32_000
"""Below the ports that the kernel gives to outgoing connections, which would take one between
`free_port` and the server's bind, or while the server is down."""

_random = random.SystemRandom()
"""Not the module's generator: pytest-randomly seeds that one alike in every worker."""

_given: set[int] = set()


def free_port() -> int:
    """Return a port on which nothing listens and which this process has not been given before."""
    while True:
        port = _random.randrange(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
