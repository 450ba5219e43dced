"""Fetches documents by URL, and connects to checked addresses only.

A name is resolved once for each connection, and the connection goes to the address that was
checked: a name that resolves to something else a moment later (DNS rebinding) changes nothing.
Redirects are followed here, each checked like the first URL. No proxy, cookie or credential is
used, and nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin

import httpcore2

from raglan import tls_trust
from raglan.errors import InvalidInput, PayloadTooLarge, RaglanError
from raglan.identifiers import shortened
from raglan.url_policy import Target, UrlPolicy

Resolve = Callable[[str, int], Awaitable[list[str]]]
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
_NOT_MODIFIED: Final = 304
_CONNECT_S: Final = 5.0
_TRIED_ADDRESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Validators:
    """Validators of a version of a document (RFC 9110, section 8.8); empty where there are none."""

    etag: str = ""
    last_modified: str = ""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Headers of a request for a later version only."""
        named = (("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified))
        return [(name, value) for name, value in named if value]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document as a server gave it."""

    url: str
    """After redirects."""
    media_type: str
    content: bytes
    validators: Validators


class FetchStatusError(InvalidInput):
    """A server answered with a status that is no document."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host` as the system finds them."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class UrlFetcher:
    """Fetches within limits; each fetch has connections of its own.

    Args:
        policy: what may be fetched.
        max_bytes: of one document.
        timeout_s: of one document, its redirects included.
        resolve: finds the addresses of a name.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        *,
        max_bytes: int,
        timeout_s: float,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._backend = _CheckedBackend(policy, resolve)
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> Fetched:
        """Fetch one document.

        Raises:
            InvalidInput: no such document, or not within the limits; the message says what.
            Forbidden: the URL, or one that it leads to, is not allowed.
        """
        found = await self.fetch_changed(url, Validators())
        if found is None:
            raise FetchStatusError(f"{shortened(url)} gave status 304.", _NOT_MODIFIED)
        return found

    async def fetch_changed(self, url: str, validators: Validators) -> Fetched | None:
        """Fetch like `fetch`; None when the server says that `validators` are still valid."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(tls_trust.context)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, validators)
        except TimeoutError:
            raise InvalidInput(
                f"{shortened(url)} was not there within {self._timeout_s:g} s "
                f"({self._policy.names.timeout})."
            ) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
            raise InvalidInput(f"{shortened(url)} could not be fetched.") from None

    async def _follow(self, url: str, validators: Validators) -> Fetched | None:
        target = self._policy.check_url(url)
        for _ in range(_MAX_REDIRECTS + 1):
            found = await self._get(target, validators)
            if not isinstance(found, str):
                return found
            try:
                joined = urljoin(target.url, found)
            except ValueError:
                raise InvalidInput(f"{shortened(url)} leads to no URL.") from None
            following = self._policy.check_url(joined)
            if (target.scheme, following.scheme) == ("https", "http"):
                raise InvalidInput(f"{shortened(url)} leads from https to http.")
            target = following
        raise InvalidInput(f"{shortened(url)} has more than {_MAX_REDIRECTS} redirects.")

    async def _get(self, target: Target, validators: Validators) -> Fetched | str | None:
        """The document, or the address that it is said to be at; None if it has not changed."""
        headers = [
            ("Host", target.authority),
            ("User-Agent", "raglan"),
            ("Accept-Encoding", "identity"),
            *validators.headers,
        ]
        async with (
            httpcore2.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=self._backend
            ) as pool,
            pool.stream(
                "GET",
                httpcore2.URL(
                    scheme=target.scheme, host=target.host, port=target.port, target=target.path
                ),
                headers=headers,
                extensions={"timeout": {"connect": _CONNECT_S, "read": self._timeout_s}},
            ) as response,
        ):
            told = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            if response.status in _REDIRECTS and "location" in told:
                return told["location"]
            if response.status == _NOT_MODIFIED and validators.headers:
                return None
            if response.status != 200:
                message = f"{shortened(target.url)} gave status {response.status}."
                raise FetchStatusError(message, response.status)
            if told.get("content-encoding", "identity").lower() != "identity":
                raise InvalidInput(f"{shortened(target.url)} is sent compressed, unasked.")
            pieces, size = [], 0
            async for piece in response.aiter_stream():
                size += len(piece)
                if size > self._max_bytes:
                    raise PayloadTooLarge(
                        f"{shortened(target.url)} has more than {self._max_bytes} bytes, the limit "
                        f"({self._policy.names.max_bytes})."
                    )
                pieces.append(piece)
            media_type = told.get("content-type", "").partition(";")[0].strip().lower()
            version = Validators(told.get("etag", ""), told.get("last-modified", ""))
            return Fetched(target.url, media_type, b"".join(pieces), version)


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses: every connection of the pool passes here."""

    def __init__(self, policy: UrlPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check and connect.

        Raises:
            RaglanError: no address, or one that is not allowed.
        """
        try:
            found = await self._resolve(host, port)
        except OSError:
            found = []
        if not found:
            raise InvalidInput(f"The host {shortened(host)} is not known.")
        # Of all: a name with a public and a private address is no mistake.
        checked = [self._policy.check_address(host, each) for each in found]
        problem: Exception = InvalidInput(f"The host {shortened(host)} cannot be reached.")
        for address in checked[:_TRIED_ADDRESSES]:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
        raise problem

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Refuse: no URL leads to one."""
        raise RaglanError("Unix sockets are not fetched from.")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)
