"""The quotas of a request: whose, of which routes, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from raglan_gateway.caller import Caller, Limits

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ANSWERS: Final = ("/v1/query", "/v1/chat/completions", "/v1/responses", "/mcp")
_SEARCHES: Final = ("/v1/search", "/v1/embeddings", "/v1/rerank")


class RouteGroup(StrEnum):
    """Routes that are limited together."""

    ANSWER = "answer"
    """Those that generate; only they are limited in tokens."""
    SEARCH = "search"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of one caller in one group of routes; 0 for none."""

    owner: str
    """Key of what is counted."""
    group: RouteGroup
    requests: int = 0
    """A minute."""
    concurrent: int = 0
    tokens: int = 0
    """A minute."""

    @property
    def limits_anything(self) -> bool:
        """True if there is something to count."""
        return bool(self.requests or self.concurrent or self.tokens)


def route_group(method: str, path: str) -> RouteGroup:
    """Return the group of a route. A new route is in one by its method."""
    if method in _READS:
        return RouteGroup.READ
    if path.startswith(_ANSWERS):
        return RouteGroup.ANSWER
    if path.startswith(_SEARCHES) or path.endswith("/search"):
        return RouteGroup.SEARCH
    return RouteGroup.WRITE


def quotas(caller: Caller, address: str, group: RouteGroup, defaults: Limits) -> Quotas:
    """Return the quotas of a request.

    Args:
        caller: whose own limits count before the defaults.
        address: of the client, by which a caller without a key is known.
        group: of the route.
        defaults: limits of the settings.
    """
    own = caller.limits
    return Quotas(
        f"key {caller.id}" if caller.id else f"address {subscriber(address)}",
        group,
        requests=own.requests_per_minute or defaults.requests_per_minute,
        concurrent=own.concurrent_requests or defaults.concurrent_requests,
        tokens=(own.tokens_per_minute or defaults.tokens_per_minute)
        if group is RouteGroup.ANSWER
        else 0,
    )


def subscriber(address: str) -> str:
    """Return who has an address: the address (IPv4), or the /64 of an IPv6 subscriber."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
