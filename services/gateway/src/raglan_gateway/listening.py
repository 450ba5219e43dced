"""The sockets that the gateway accepts on: its own, or those that its parent hands in.

An inherited socket outlives the process, so a gateway can be replaced, or crash, while callers
wait in the socket's queue instead of being refused.
"""

from __future__ import annotations

import socket
from typing import Final

from raglan.errors import InvalidInput, Unavailable
from raglan.rpc.addresses import format_address, listening_socket

from raglan_gateway.settings import GatewaySettings

_UNSENT_BYTES: Final = 64 * 1024
"""Unsent bytes of a reply that the kernel buffers for a slow client; beyond them the pipeline
waits."""


def sockets(settings: GatewaySettings) -> list[socket.socket]:
    """Listening sockets; the first is the gateway's address.

    Raises:
        Unavailable: the address cannot be listened on.
        InvalidInput: a descriptor of `listen_fd` is no listening socket.
    """
    if settings.listen_fd:
        found = [_inherited(fd) for fd in settings.listen_fd.split(",")]
    else:
        found = [_bound(settings.host, settings.port)]
    for each in found:
        _bound_memory(each, settings.slow_reader_s)
    return found


def _bound(host: str, port: int) -> socket.socket:
    try:
        return listening_socket(host, port)
    except OSError as error:
        raise Unavailable(
            f"{format_address(host, port)} cannot be listened on: {error.strerror} "
            "(RAGLAN_GATEWAY_PORT)."
        ) from None


def _inherited(fd: str) -> socket.socket:
    try:
        found = socket.socket(fileno=int(fd))
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return found
    except (OSError, ValueError):
        pass
    raise InvalidInput(f"{fd!r} is no descriptor of a listening socket (RAGLAN_GATEWAY_LISTEN_FD).")


def _bound_memory(listening: socket.socket, slow_reader_s: float) -> None:
    """Accepted sockets inherit both options. Where they are missing, replies are only held back."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The kernel alone sees a client that takes nothing in, or is gone without a word.
        milliseconds = round(slow_reader_s * 1e3)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
