"""Where the replicas of a service are: a list, names that are resolved again and again, or a file.

gRPC's own resolver gives an open channel no traffic to replicas that a name gains later, so the
pool asks here every few seconds. An answer that cannot be had leaves the last good one standing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAME_EVERY_S: Final = 5.0
FILE_EVERY_S: Final = 1.0
_RESOLVE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a setting says: fixed endpoints, names to resolve, or a file with either."""

    fixed: frozenset[str]
    """Each an IP address and a port, as "10.0.0.1:7101" or "[::1]:7101"."""
    names: tuple[tuple[str, int], ...] = ()
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """Read "10.0.0.1:7101,10.0.0.2:7101", "embedder.svc:7101" or "@/path/of/a/file".

        A name stands for every address that it resolves to, as a Kubernetes headless service
        does. A file has one address or name a line; lines that begin with # are comments.

        Raises:
            ValueError: no address, or one without a port.
        """
        if text.startswith("@"):
            return cls(frozenset(), file=Path(text[1:]))
        parts = [part for part in (each.strip() for each in text.split(",")) if part]
        if not parts:
            raise ValueError("no address given")
        fixed, names = set[str](), []
        for part in parts:
            host, _, port = part.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{part!r} is no address; write it as host:port")
            if _is_ip(host):
                fixed.add(part)
            else:
                names.append((host, int(port)))
        return cls(frozenset(fixed), tuple(names))

    @property
    def every_s(self) -> float | None:
        """How often to look again; None where nothing can change."""
        if self.file is not None:
            return FILE_EVERY_S
        return NAME_EVERY_S if self.names else None

    async def resolve(self) -> frozenset[str]:
        """The endpoints now.

        Raises:
            OSError: a name or the file gives no answer.
            ValueError: the file holds something else than addresses.
        """
        if self.file is not None:
            return await (await asyncio.to_thread(_read, self.file)).resolve()
        found = await asyncio.gather(*(_lookup(host, port) for host, port in self.names))
        return self.fixed.union(*found)


def _read(file: Path) -> Addresses:
    lines = file.read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if any(line.startswith("@") for line in listed):
        raise ValueError(f"{file} names another file; it must hold addresses")
    return Addresses.parse(",".join(listed))


async def _lookup(host: str, port: int) -> frozenset[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise OSError(f"{host} was not resolved within {_RESOLVE_S:g} s") from error
    # One family only: a replica with both would otherwise count twice.
    four = {f"{address[0]}:{port}" for family, *_, address in found if family == socket.AF_INET}
    six = {f"[{address[0]}]:{port}" for family, *_, address in found if family == socket.AF_INET6}
    return frozenset(four or six)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
