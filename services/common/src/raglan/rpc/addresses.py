"""Addresses of a service's replicas: a list, names resolved periodically, or a file.

gRPC's own resolver gives an open channel no traffic to replicas that a name gains later, so the
pool asks here every few seconds. A name without an answer keeps its last good one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiodns import DNSResolver
from aiodns.error import DNSError

NAME_EVERY_S: Final = 5.0
FILE_EVERY_S: Final = 1.0
_RESOLVE_S: Final = 5.0
LISTEN_BACKLOG: Final = 2048
_ANSWER_S: Final = 1.25
"""After it the query is sent again, or to the next name server."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """A parsed address setting: fixed endpoints, names to resolve, or a file of either."""

    fixed: frozenset[str]
    """Each an IP address and a port, as "10.0.0.1:7101" or "[::1]:7101"."""
    names: tuple[tuple[str, int], ...] = ()
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """Read "10.0.0.1:7101,10.0.0.2:7101", "embedder.svc:7101" or "@/path/of/a/file".

        A name stands for every address that it resolves to, as a Kubernetes headless service
        does. A file has one address or name a line; what follows # is a comment.

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
        """Interval between resolutions in seconds; None for fixed endpoints."""
        if self.file is not None:
            return FILE_EVERY_S
        return NAME_EVERY_S if self.names else None


def _read(file: Path) -> Addresses:
    lines = file.read_text(encoding="utf-8").splitlines()
    listed = [found for line in lines if (found := line.partition("#")[0].strip())]
    if any(line.startswith("@") for line in listed):
        raise ValueError(f"{file} names another file; it must hold addresses")
    return Addresses.parse(",".join(listed))


class Resolver:
    """Resolver of the current replicas. Create it inside a running event loop, and close it.

    Asks name servers by itself (c-ares): a look-up of the system's resolver holds a thread for as
    long as name servers are silent, and a few of them would hold all that the process has.

    Args:
        name_servers: "ip:port" each; without them, those of the system.
    """

    def __init__(self, name_servers: Sequence[str] = ()) -> None:
        self._name_servers = name_servers
        self._dns: DNSResolver | None = None
        self._answers: dict[tuple[str, int], frozenset[str]] = {}
        """The last good answer of each name."""

    async def close(self) -> None:
        """Give up what is being looked up."""
        if self._dns is not None:
            await self._dns.close()

    async def resolve(self, addresses: Addresses) -> tuple[frozenset[str], list[str]]:
        """The endpoints now, and what is wrong with names whose last good answer stands instead.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds something else than addresses.
        """
        if addresses.file is not None:
            addresses = await asyncio.to_thread(_read, addresses.file)
        if addresses.names:
            # A new client each time (0.4 ms): one keeps answers for their time to live, ten minutes
            # in Docker and a day in podman, and so would not see replicas come and go.
            await self.close()
            self._dns = DNSResolver(
                self._name_servers or None, timeout=_ANSWER_S, tries=int(_RESOLVE_S / _ANSWER_S)
            )
        outcomes = await asyncio.gather(*(self._look_up(*name) for name in addresses.names))
        problems = [problem for problem in outcomes if problem]
        self._answers = {n: found for n, found in self._answers.items() if n in addresses.names}
        return addresses.fixed.union(*self._answers.values()), problems

    async def _look_up(self, host: str, port: int) -> str:
        """Find the addresses of one name; what is wrong if there is no answer, else ""."""
        assert self._dns is not None
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await self._dns.getaddrinfo(host, port=port, type=socket.SOCK_STREAM)
        except TimeoutError:
            return f"{host} was not resolved within {_RESOLVE_S:g} s"
        except (DNSError, UnicodeError) as error:
            return f"{host}: {error.args[-1]}"
        nodes = [(node.family, node.addr[0].decode()) for node in found.nodes]
        # One family only: a replica with both would otherwise count twice.
        four = [ip for family, ip in nodes if family == socket.AF_INET]
        found_ips = four or [ip for _, ip in nodes]
        self._answers[host, port] = frozenset(format_address(ip, port) for ip in found_ips)
        return ""


def format_address(host: str, port: int | str) -> str:
    """Join host and port: "::1" and 7101 give "[::1]:7101"."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens; on "::" for IPv4 as well.

    Raises:
        OSError: the address cannot be listened on.
    """
    return socket.create_server(
        (host, port), family=family_of(host), dualstack_ipv6=host == "::", backlog=LISTEN_BACKLOG
    )


def family_of(host: str) -> socket.AddressFamily:
    """The family of sockets that listen on `host`."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
