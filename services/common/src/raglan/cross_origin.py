"""Policy for requests of web pages: a browser sends requests to loopback for any page.

A page of another site can upload a form without a preflight, and after it has its own name resolve
to 127.0.0.1 (DNS rebinding) it can also read the reply. So on loopback only known names are served,
and a request of another origin that may change something needs that origin's permission.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from raglan.errors import Forbidden
from raglan.identifiers import shortened

ANY: Final = "*"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossOriginPolicy:
    """Policy of the hosts and origins that are served."""

    def __init__(
        self,
        *,
        listens_on: str,
        allowed_hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        service: str = "gateway",
    ) -> None:
        """Allow the hosts and origins given.

        Args:
            listens_on: the address of the listening socket.
            allowed_hosts: names without port; `*` for any. When empty: on loopback `localhost`, any
                name elsewhere.
            origins: `scheme://host[:port]` of pages that may do what a client may; `*` for all.
            service: the service that refuses, as refusals and the settings in them name it.
        """
        names = {name.lower() for name in allowed_hosts}
        if not names and not is_loopback(listens_on):
            names = {ANY}
        self._names = names or {"localhost"}
        self._origins = frozenset(origins)
        self._service = service

    def check(self, scope: Mapping[str, Any]) -> None:
        """Raise Forbidden for a request, an ASGI scope, that a foreign page may have sent."""
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        for name, host in headers:
            if name == "host":
                self._check_host(host)
        if scope["method"] not in _READING:
            self._check_origin(dict(headers))

    def _check_host(self, host: str) -> None:
        name = _name_of(host)
        # No DNS name leads to an address, so a rebound page never sends one.
        known = self._names & {ANY, name} or _is_address(name)
        if not known and not ("localhost" in self._names and name.endswith(".localhost")):
            raise Forbidden(
                f"The {self._service} is not served under the host {shortened(host)}; "
                f"RAGLAN_{self._service.upper()}_ALLOWED_HOSTS allows others."
            )

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin in self._origins or ANY in self._origins:
            return
        site = headers.get("sec-fetch-site")
        if site is not None:
            same = site in ("same-origin", "none")
        else:
            # Browsers leave it out over plain HTTP to other machines, and older ones everywhere.
            same = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "")
        if not same:
            raise Forbidden(
                f"A page of {shortened(origin or 'another site')} may not change anything here; "
                "the gateway allows it with RAGLAN_GATEWAY_CORS_ORIGINS."
            )


def _name_of(host: str) -> str:
    """The name in a Host header, without port; "" where it cannot be read."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
