"""A TCP proxy that can stop to forward without closing anything: a network that drops packets.

    python black_hole.py <port> <port behind>

SIGUSR1 swallows every byte from then on, of connections old and new; SIGUSR2 forwards again, on new
connections: what was swallowed is lost, so the old ones are closed, as a peer's reset would.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys


class Proxy:
    """Forwards from one port to another."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._swallowing = False
        self._spoilt: set[asyncio.StreamWriter] = set()

    def swallow(self) -> None:
        """From now on nothing passes."""
        self._swallowing = True

    def forward(self) -> None:
        """Let new connections through."""
        self._swallowing = False
        for writer in self._spoilt:
            writer.close()
        self._spoilt.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self._swallowing:
            self._spoilt.add(writer)
            return
        try:
            there, to = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._copy(reader, to), self._copy(there, writer))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self._swallowing:
                    self._spoilt.add(target)
                elif target not in self._spoilt:
                    target.write(data)
                    await target.drain()
        if not self._swallowing:
            target.close()


async def main() -> None:
    """For ever."""
    port, behind = map(int, sys.argv[1:])
    proxy = Proxy(behind)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, proxy.swallow)
    loop.add_signal_handler(signal.SIGUSR2, proxy.forward)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
