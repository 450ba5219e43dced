"""Rules for what is fetched by URL: allowed schemes, hosts, ports and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from raglan.errors import Forbidden, InvalidInput
from raglan.identifiers import shortened

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ANY: Final = "*"
MAX_URL_CHARS: Final = 2_000
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*\.?")
_FORBIDDEN_CHARS: Final = re.compile(r"[\x00-\x20\x7f\\]")
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays to 6to4
        "2001::/23",  # protocol assignments, Teredo among them, which holds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)
"""Besides what `ipaddress` calls not global (IANA's registries of special addresses)."""


@dataclass(frozen=True, slots=True)
class SettingNames:
    """Names of the settings that allow more, for error messages."""

    hosts: str
    networks: str
    max_bytes: str
    timeout: str


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL in its parts."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query, percent-encoded."""

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without a fragment."""
        return f"{self.scheme}://{self.authority}{self.path}"


class UrlPolicy:
    """Policy for fetched URLs.

    Args:
        hosts: names (`*.example.com` for those below one), or `*` for every public one.
        networks: that may be reached although they are not public.
        ports: numbers that a URL may name.
        names: of the settings that these come from.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        networks: Iterable[str] = (),
        ports: Iterable[int] = tuple(_PORTS.values()),
        *,
        names: SettingNames,
    ) -> None:
        self.names = names
        self._hosts = frozenset(host.lower() for host in hosts)
        self._networks = tuple(ipaddress.ip_network(each) for each in networks)
        self._ports = frozenset(ports)

    def check_url(self, url: str) -> Target:
        """Take a URL apart.

        Raises:
            InvalidInput: it is none, or of another scheme or port, or holds credentials.
            Forbidden: its host is not allowed.
        """
        shown = shortened(url)
        if len(url) > MAX_URL_CHARS:
            raise InvalidInput(f"The URL has {len(url)} characters; the limit is {MAX_URL_CHARS}.")
        if _FORBIDDEN_CHARS.search(url):
            raise InvalidInput(f"The URL {shown} holds a space, backslash or control character.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidInput(f"{shown} is no URL.") from None
        if parts.scheme not in _PORTS:
            raise InvalidInput(f"The URL {shown} begins with neither http:// nor https://.")
        if "@" in parts.netloc:
            raise InvalidInput("The URL holds credentials; leave them out.")
        port = _PORTS[parts.scheme] if port is None else port
        if port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise Forbidden(f"The URL {shown} has port {port}; {allowed} are fetched.")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
        return Target(
            parts.scheme, self._check_host(parts.hostname or "", shown), port, path + query
        )

    def check_address(self, host: str, address: str) -> Address:
        """Return `address`, to which `host` resolves, if it may be connected to.

        Raises:
            Forbidden: it is not public, and of no network that is allowed.
        """
        try:
            found = ipaddress.ip_address(address)
        except ValueError:  # with a zone, say
            raise Forbidden(f"The host {shortened(host)} has no address that is fetched.") from None
        if is_public(found) or any(found in network for network in self._networks):
            return found
        raise Forbidden(
            f"The host {shortened(host)} is not on the public internet; "
            f"{self.names.networks} allows other networks."
        )

    def _check_host(self, host: str, shown: str) -> str:
        try:
            ascii_host = host if ":" in host else host.encode("idna").decode().lower()
        except UnicodeError:
            ascii_host = ""
        is_address = ":" in ascii_host and "%" not in ascii_host
        if not is_address and not _HOST.fullmatch(ascii_host):
            raise InvalidInput(f"The URL {shown} has no host that can be looked up.")
        name = ascii_host.removesuffix(".")
        parents = name.split(".")
        wildcards = {f"*.{'.'.join(parents[i:])}" for i in range(1, len(parents))}
        if not self._hosts & {ANY, name, *wildcards}:
            raise Forbidden(
                f"The host {shortened(name)} is not among those that are fetched "
                f"({self.names.hosts})."
            )
        return ascii_host


def is_public(address: Address) -> bool:
    """Return whether `address` is one of the public internet, and leads nowhere else."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.scope_id is not None or address not in _GLOBAL_IPV6
    ):
        return False
    special = any(address in each for each in _SPECIAL if each.version == address.version)
    return address.is_global and not address.is_multicast and not special
