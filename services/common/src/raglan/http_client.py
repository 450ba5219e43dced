"""One model server over HTTP: a keep-alive pool, limits, and every failure as one of our errors.

What was sent once stands: nothing is retried here, the mesh decides on that. Neither what is sent
nor what comes back is logged.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from pydantic import SecretStr

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

T = TypeVar("T")

_KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn closes an idle connection."""

_MAX_ERROR_BYTES: Final = 64 * 1024
_MAX_DETAIL_CHARS: Final = 300
_DEFAULT_RETRY_S: Final = 1.0
_BETWEEN_PROBES_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Called:
    """What messages call the server, and the settings that lead to it."""

    name: str
    """Begins a sentence: "The embedding server"."""

    variables: str
    """Prefix of its settings: "RAGLAN_EMBEDDER"."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a call may take, each besides its deadline."""

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
        called: Called,
        api_key: SecretStr | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        """Calls nobody yet. Reads the TLS certificates, 100 ms: make it in a thread.

        Args:
            base_url: what paths are appended to.
            api_key: sent as a bearer token; None or empty sends none.

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
        self._connections = asyncio.Semaphore(self._limits.connections)
        self._client = httpx.AsyncClient(
            # Neither a proxy nor a key from the environment: the server is the one that is set.
            trust_env=False,
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
        """What `read` makes of the JSON answer to `body`. Both run in a thread.

        Args:
            read: raises ValueError where the answer is not what it must be; its text is shown.

        Raises:
            InvalidInput: the server refuses the request, or it is larger than the limit.
            Overloaded: the server is, or too many requests wait already.
            Unavailable: it cannot be reached, fails, or does not answer in JSON.
            DeadlineExceeded: the time ran out.
            Internal: it answers amiss, or refuses the key, model or address that are set.
        """
        content = await asyncio.to_thread(_encode, body)
        if len(content) > self._limits.request_bytes:
            raise PayloadTooLarge(
                f"The request holds {len(content)} bytes; {self._called.name.lower()} is sent at "
                f"most {self._limits.request_bytes}. Send less at once."
            )
        return await self._call("POST", path, content, read, deadline)

    async def get(self, path: str, read: Callable[[Any], T], *, deadline: Deadline) -> T:
        """What `read` makes of the JSON answer. Raises as `post` does."""
        return await self._call("GET", path, None, read, deadline)

    async def until_up(self, probe: Callable[[Deadline], Any], *, deadline: Deadline) -> None:
        """Await `probe(deadline)` again and again while the server is not there or too busy.

        Raises:
            RaglanError: the last failure, once the deadline is near; any other at once.
        """
        while True:
            try:
                await probe(deadline)
            except (Unavailable, Overloaded):
                if deadline.remaining_s() < 2 * _BETWEEN_PROBES_S:
                    raise
                await asyncio.sleep(_BETWEEN_PROBES_S)
            else:
                return

    async def close(self) -> None:
        """Close the pool."""
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
                retry_after_s=_DEFAULT_RETRY_S,
            )
        limit = deadline.within(self._limits.total_s)
        self._in_flight += 1
        try:
            async with asyncio.timeout(limit.remaining_s()), self._connections:
                body = await self._exchange(method, path, content)
        except TimeoutError:
            raise self._late(deadline, limit) from None
        except httpx.HTTPError as error:
            raise self._from_transport(error) from None
        finally:
            self._in_flight -= 1
        try:
            return await asyncio.to_thread(self._read, body, read)
        except ValueError as error:
            raise Internal(f"{self._called.name} answered amiss: {error}.") from None
        except (TypeError, KeyError, IndexError, AttributeError):
            raise Internal(
                f"{self._called.name} answered in another form than expected; is "
                f"{self._called.variables}_API the one it speaks?"
            ) from None

    async def _exchange(self, method: str, path: str, content: bytes | None) -> bytes:
        url = self._base_url + path
        async with self._client.stream(method, url, content=content) as response:
            good = response.status_code == httpx.codes.OK
            most = self._limits.answer_bytes if good else _MAX_ERROR_BYTES
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    break
        if not good:
            raise self._from_response(response.status_code, bytes(body), response.headers)
        if len(body) > most:
            raise Internal(f"{self._called.name} answered with over {most} bytes.")
        return bytes(body)

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

    def _from_response(self, status: int, body: bytes, headers: Mapping[str, str]) -> RaglanError:
        """The error that a status stands for. Only words on a refused request are passed on."""
        name, variables = self._called.name, self._called.variables
        retry_s = _retry_after(headers)
        match status:
            case 401 | 403:
                return Internal(f"{name} refused the key ({variables}_API_KEY).")
            case 404 | 405:
                return Internal(
                    f"{name} has no such model or path ({variables}_MODEL, "
                    f"{variables}_BASE_URL, {variables}_API)."
                )
            case 413:
                return PayloadTooLarge(f"{name} was sent too much: {self._detail(body)}")
            case 400 | 422:
                return InvalidInput(f"{name} refused the request: {self._detail(body)}")
            case 429:
                return Overloaded(
                    f"{name} is overloaded.",
                    retry_after_s=_DEFAULT_RETRY_S if retry_s is None else retry_s,
                )
            # 424 is how text-embeddings-inference reports a failure of its backend.
            case _ if status >= 500 or status in (408, 424):
                return Unavailable(f"{name} failed ({status}).", retry_after_s=retry_s)
            case _:
                return Internal(f"{name} answered {status}; is {variables}_BASE_URL its address?")

    def _detail(self, body: bytes) -> str:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        for _ in range(2):  # {"error": {"message": ...}}, {"error": ...}, {"detail": ...}
            if isinstance(said, dict):
                keys = ("error", "message", "detail")
                said = next((said[key] for key in keys if key in said), None)
        if not isinstance(said, str) or not said:
            return "no reason given."
        if key := self._key.get_secret_value():
            said = said.replace(key, "***")
        return said[:_MAX_DETAIL_CHARS]


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, given as a number or as a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), 3_600.0) if seconds == seconds else None
