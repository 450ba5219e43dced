"""One model server over HTTP: a keep-alive pool, limits, and every failure as one of our errors.

What was sent once stands: nothing is retried here, the mesh decides on that. Neither what is sent
nor what comes back is logged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import structlog
from opentelemetry.trace import Span
from pydantic import SecretStr

from raglan import http_errors, tls_trust
from raglan.deadline import Deadline
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)
from raglan.health import Health
from raglan.http_errors import RemoteServer
from raglan.telemetry import semconv
from raglan.telemetry.http import http_span, trace_headers

log: Final = structlog.get_logger()

T = TypeVar("T")

_KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn closes an idle connection."""

_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})
_MAX_ERROR_BYTES: Final = 64 * 1024
_BETWEEN_PROBES_S: Final = 0.5
_PROBE_S: Final = 10.0
_AWAY_AFTER: Final = 3
"""Calls one after another that do not reach the server, after which it counts as away."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of a call in addition to its deadline."""

    connect_s: float = 2.0
    total_s: float = 30.0
    connections: int = 16
    """Requests on their way at once."""

    waiting: int = 256
    """Requests that wait for a connection; past it, they are refused."""

    request_bytes: int = 16 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024


class ModelServer:
    """Speaks JSON with one server. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        base_url: str,
        *,
        called: RemoteServer,
        api_key: SecretStr | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        """Read the TLS certificates, 100 ms: call it in a thread. Opens no connection.

        Args:
            base_url: what paths are appended to.
            called: names the server in messages.
            api_key: sent as a bearer token; None or empty sends none.
            limits: timeouts and sizes of a call.

        Raises:
            InvalidInput: `base_url` is no http or https address.
        """
        if not _is_address(base_url):
            raise InvalidInput(
                f"{called.variables}_BASE_URL is {base_url!r}; give an address like "
                "http://127.0.0.1:8080."
            )
        self._called = called
        self._base_url = base_url.rstrip("/")
        self._key = api_key or SecretStr("")
        self._limits = limits or HttpLimits()
        self._in_flight = 0
        self._probe: Callable[[Deadline], Any] | None = None
        self._not_reached = 0
        self._watching: asyncio.Task[None] | None = None
        self._connections = asyncio.Semaphore(self._limits.connections)
        self._client = httpx.AsyncClient(
            # Neither a proxy nor a key from the environment: the server is the one that is set.
            trust_env=False,
            verify=tls_trust.context(),
            headers=self._headers(),
            timeout=httpx.Timeout(None, connect=self._limits.connect_s),
            limits=httpx.Limits(
                max_connections=self._limits.connections,
                max_keepalive_connections=self._limits.connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
        )

    async def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], *, deadline: Deadline
    ) -> T:
        """Post `body` and return `read(reply)`. Encoding and decoding run in a thread.

        Args:
            path: appended to the base URL.
            body: sent as JSON.
            read: raises ValueError where the answer is not what it must be; its text is shown.
            deadline: limit of the call.

        Raises:
            InvalidInput: the server refuses the request, or it is larger than the limit.
            Overloaded: the server is, or too many requests wait already.
            Unavailable: it cannot be reached, fails, or does not answer in JSON.
            DeadlineExceeded: the time ran out.
            Internal: its reply is invalid, or it refuses the key, model or address that are set.
        """
        content = await asyncio.to_thread(_encode, body)
        if len(content) > self._limits.request_bytes:
            raise PayloadTooLarge(
                f"The request holds {len(content)} bytes; {self._called.name.lower()} is sent at "
                f"most {self._limits.request_bytes}. Send less at once."
            )
        return await self._call("POST", path, content, read, deadline)

    async def get(self, path: str, read: Callable[[Any], T], *, deadline: Deadline) -> T:
        """Get `path` and return `read(reply)`. Raises like `post`."""
        return await self._call("GET", path, None, read, deadline)

    async def until_up(self, probe: Callable[[Deadline], Any], *, deadline: Deadline) -> None:
        """Await `probe(deadline)` again and again while the server is not there or too busy.

        The same probe later detects that a server is back.

        Raises:
            RaglanError: the last failure, once the deadline is near; any other at once.
        """
        self._probe = probe
        while True:
            try:
                await probe(deadline)
            except (Unavailable, Overloaded):
                if deadline.remaining_s() < 2 * _BETWEEN_PROBES_S:
                    raise
                await asyncio.sleep(_BETWEEN_PROBES_S)
            else:
                return

    def health(self) -> Health:
        """Return whether the server is there, by the last calls; one that is away is probed."""
        return Health.AWAY if self._not_reached >= _AWAY_AFTER else Health.SERVING

    async def close(self) -> None:
        """Close the pool."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._client.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        content: bytes | None,
        read: Callable[[Any], T],
        deadline: Deadline,
    ) -> T:
        if self._in_flight >= self._limits.connections + self._limits.waiting:
            raise Overloaded(
                f"{self._in_flight} requests to {self._called.name.lower()} are on their way.",
                retry_after_s=http_errors.DEFAULT_RETRY_S,
            )
        body = await self._limited(method, path, content, deadline)
        try:
            return await asyncio.to_thread(self._read, body, read)
        except ValueError as error:
            raise Internal(f"{self._called.name} sent an invalid reply: {error}.") from None
        except (TypeError, KeyError, IndexError, AttributeError):
            raise Internal(
                f"{self._called.name} answered in another form than expected; is "
                f"{self._called.variables}_API the one it speaks?"
            ) from None

    async def _limited(
        self, method: str, path: str, content: bytes | None, deadline: Deadline
    ) -> bytes:
        """The answer, once a connection is free; foreign errors become ours."""
        limit = deadline.within(self._limits.total_s)
        url = self._base_url + path
        self._in_flight += 1
        with http_span(method, url) as span:
            try:
                async with asyncio.timeout(limit.remaining_s()), self._connections:
                    answer = await self._exchange(method, url, content, span)
                    self._not_reached = 0
                    return answer
            except TimeoutError:
                raise self._late(deadline, limit) from None
            except httpx.HTTPError as error:
                self._note_not_reached()
                raise self._from_transport(error) from None
            finally:
                self._in_flight -= 1

    async def _exchange(self, method: str, url: str, content: bytes | None, span: Span) -> bytes:
        sending = self._client.stream(method, url, content=content, headers=trace_headers())
        async with sending as response:
            span.set_attribute(semconv.HTTP_STATUS, response.status_code)
            good = response.status_code == httpx.codes.OK
            most = self._limits.answer_bytes if good else _MAX_ERROR_BYTES
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    break
        if response.status_code in _GATEWAY_STATUSES:
            self._note_not_reached()
        if not good:
            raise http_errors.from_response(
                self._called,
                response.status_code,
                _json_or_none(bytes(body)),
                response.headers,
                secret=self._key.get_secret_value(),
            )
        if len(body) > most:
            raise Internal(f"{self._called.name} answered with over {most} bytes.")
        return bytes(body)

    def _note_not_reached(self) -> None:
        self._not_reached += 1
        watching = self._watching is not None and not self._watching.done()
        if self._not_reached >= _AWAY_AFTER and self._probe is not None and not watching:
            log.warning("a model server is away", server=self._called.name)
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._probe))

    async def _watch(self, probe: Callable[[Deadline], Any]) -> None:
        """Probe the server until it is back: no call is sent while it is away."""
        while True:
            await asyncio.sleep(_BETWEEN_PROBES_S)
            try:
                await probe(Deadline.after(_PROBE_S))
            except RaglanError as error:
                # A replica that answers probes wrongly would answer calls wrongly.
                self._not_reached = max(self._not_reached, _AWAY_AFTER)
                log.debug("a model server is still away", reason=error.message)
            else:
                self._not_reached = 0
                log.info("a model server is back", server=self._called.name)
                return

    def _read(self, body: bytes, read: Callable[[Any], T]) -> T:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise Unavailable(
                f"{self._called.name} did not answer in JSON; is "
                f"{self._called.variables}_BASE_URL its address?"
            ) from None
        return read(answer)

    def _headers(self) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            # Unpacking would cost us more than the network is worth.
            "accept-encoding": "identity",
        }
        if key := self._key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        return headers

    def _late(self, deadline: Deadline, limit: Deadline) -> RaglanError:
        who = self._called
        if limit.at >= deadline.at:
            return DeadlineExceeded(f"The deadline passed before {who.name.lower()} had answered.")
        return Unavailable(f"{who.name} did not answer within {self._limits.total_s:g} s.")

    def _from_transport(self, error: httpx.HTTPError) -> RaglanError:
        who = self._called
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(f"{who.name} cannot be reached ({who.variables}_BASE_URL).")
        return Unavailable(f"{who.name} closed the connection before the end of its answer.")


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
