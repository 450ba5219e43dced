"""A connection to one gateway: attempts, deadlines, replies and streams of events."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import httpx_sse
from raglan.client import errors, transport
from raglan.client.transport import Deadline, RetryPolicy
from tenacity import Retrying, retry_if_exception


class Connection:
    """HTTP to one gateway.

    Args:
        base_url: of the gateway; without it RAGLAN_URL, else http://127.0.0.1:8080.
        api_key: sent as a bearer token; without it RAGLAN_API_KEY. "" sends none.
        timeout_s: seconds that a call may take in all, its retries included.
        silence_s: seconds without a byte after which the gateway counts as gone; it sends one
            every 15 s while a stream is open.
        max_retries: how often a call that harms nothing twice is repeated after 429, 503 or a
            broken connection.
        verify: False, or a TLS context of your own authorities.
        http_transport: of httpx, for a proxy, a Unix socket or an application in the process.

    Raises:
        ValueError: an argument that can never work.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        silence_s: float = 120.0,
        max_retries: int = 2,
        verify: ssl.SSLContext | bool = True,
        http_transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = transport.base_url(base_url)
        self.timeout_s = timeout_s
        self.silence_s = silence_s
        self.max_retries = max_retries
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=transport.headers(api_key),
            verify=verify,
            transport=http_transport,
            # A proxy from the environment has no way to this machine's loopback.
            trust_env=httpx.URL(self.base_url).host not in transport.LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        idempotent: bool | None = None,
        deadline: Deadline | None = None,
        max_retries: int | None = None,
        json: Any = None,
        **content: Any,
    ) -> Any:
        """Send a request and return the JSON of its reply; a list for JSON lines, None for nothing.

        For routes that have no method here.

        Args:
            method: of HTTP.
            path: below the gateway's URL, such as `/v1/status`.
            idempotent: whether it may be repeated; by default what is not a POST.
            deadline: of the whole call; by default in `timeout_s` seconds.
            max_retries: by default the client's.
            json: body.
            content: `params`, `files`, `data`, `content`, `headers`, as httpx takes them.

        Raises:
            RaglanError: see `raglan.client.errors`.
        """
        deadline = deadline or Deadline(self.timeout_s)
        if idempotent is None:
            idempotent = method != "POST"
        for attempt in self._attempts(deadline, idempotent, max_retries):
            with attempt:
                body = transport.body_within(json, deadline)
                return self._request_once(method, path, deadline, json=body, **content)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def events(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        deadline: Deadline | None = None,
        max_retries: int | None = None,
    ) -> Iterator[Iterator[tuple[str, Mapping[str, Any]]]]:
        """Open a stream of server-sent events; yields an iterator of (name, data).

        What fails before the first event is retried as for `request`; later errors are raised by
        the iterator.

        Raises:
            RaglanError: see `raglan.client.errors`.
        """
        deadline = deadline or Deadline(self.timeout_s)
        with ExitStack() as stack:
            for attempt in self._attempts(deadline, True, max_retries):
                with attempt:
                    body = transport.body_within(json, deadline)
                    source = self._open(stack, method, path, deadline, body)
            yield self._pairs(source, deadline)

    def _attempts(self, deadline: Deadline, idempotent: bool, max_retries: int | None) -> Retrying:
        retries = self.max_retries if max_retries is None else max_retries
        policy = RetryPolicy(deadline, retries, idempotent)
        return Retrying(
            retry=retry_if_exception(policy.retries),
            wait=policy.wait,
            stop=policy.stop,
            reraise=True,
        )

    def _request_once(self, method: str, path: str, deadline: Deadline, **content: Any) -> Any:
        with (
            transport.translated(self.base_url),
            self._http.stream(
                method, path, timeout=transport.times(deadline, self.silence_s), **content
            ) as response,
        ):
            pieces, size = [], 0
            for piece in response.iter_bytes():
                deadline.check()
                pieces.append(piece)
                size += len(piece)
                if size > transport.MAX_REPLY_BYTES:
                    raise errors.ProtocolError(
                        f"The reply is larger than {transport.MAX_REPLY_BYTES} bytes."
                    )
            return transport.parsed(response, b"".join(pieces))

    def _open(
        self, stack: ExitStack, method: str, path: str, deadline: Deadline, json: Any
    ) -> httpx_sse.EventSource:
        with ExitStack() as opening:
            with transport.translated(self.base_url):
                source = opening.enter_context(
                    httpx_sse.connect_sse(
                        self._http,
                        method,
                        path,
                        json=json,
                        timeout=transport.times(deadline, self.silence_s),
                    )
                )
                if not source.response.is_success:
                    transport.parsed(source.response, source.response.read())
            stack.push(opening.pop_all())
            return source

    def _pairs(
        self, source: httpx_sse.EventSource, deadline: Deadline
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with transport.translated(self.base_url):
            for event in source.iter_sse():
                deadline.check()
                yield event.event, event.json() if event.data else {}
