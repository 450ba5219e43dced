"""The gateway's listening socket, held here: it outlives every gateway that serves on it.

While there is none, after a crash, callers wait in its queue; while there are two, in a rolling
restart, either answers. Each gateway has a second socket, on which it answers alone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from raglan.rpc.addresses import format_address, listening_socket

from raglan_cli.failure import Failure

VARIABLE: Final = "RAGLAN_GATEWAY_LISTEN_FD"
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SocketHandover:
    """Sockets of one process."""

    descriptors: tuple[int, ...]
    address: str
    """The process's own address."""

    @property
    def env(self) -> dict[str, str]:
        """The variable that names its sockets."""
        return {VARIABLE: ",".join(map(str, self.descriptors))}


class SharedSocket:
    """A listening socket shared by gateway processes. Close it."""

    def __init__(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            Failure: the address cannot be listened on.
        """
        try:
            self._socket = listening_socket(host, port)
        except OSError as error:
            raise Failure(
                f"The gateway cannot listen on {format_address(host, port)}: {error.strerror}. "
                f"Choose another port: raglan up --port {port + 1}"
            ) from None

    @contextmanager
    def handover(self) -> Iterator[SocketHandover]:
        """The descriptors for one process that is started within the block."""
        with socket.create_server((_LOOPBACK, 0)) as own:
            descriptors = (self._socket.fileno(), own.fileno())
            yield SocketHandover(descriptors, f"{_LOOPBACK}:{own.getsockname()[1]}")

    def close(self) -> None:
        """Refuse callers from here on."""
        self._socket.close()
