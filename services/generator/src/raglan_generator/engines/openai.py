"""Any server that speaks OpenAI's `/chat/completions`, streamed over one keep-alive pool."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog
from pydantic import SecretStr
from raglan import http_errors, tls_trust
from raglan.deadline import Deadline
from raglan.errors import RaglanError, Unavailable
from raglan.health import Health
from raglan.telemetry import semconv
from raglan.telemetry.http import http_span, trace_headers

from raglan_generator.engines import openai_errors
from raglan_generator.engines.hold_off import HoldOff
from raglan_generator.engines.openai_errors import ParameterRefused
from raglan_generator.engines.openai_frames import Completion
from raglan_generator.engines.openai_request import Parameters
from raglan_generator.engines.openai_response import ResponseBody, Timeouts, Waiting
from raglan_generator.generation import EngineInfo, Load, Request, Sampling
from raglan_generator.language_model import End, Piece, Prompt, Tokenizer

log: Final = structlog.get_logger()

_OK: Final = 200
_KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""


class OpenAIModel:
    """Asks one server for one model.

    A request is sent again only where the server has refused a parameter of it, without that one.
    After a Retry-After nothing is sent until its time has come.

    Args:
        tokenizer: what prompts are measured by.
        sampling: where a request leaves it open.
        adapters: further models of the server, by the name that a request gives them.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        tokenizer: Tokenizer,
        api_key: SecretStr,
        sampling: Sampling,
        adapters: Mapping[str, str] = MappingProxyType({}),
        timeouts: Timeouts | None = None,
        max_connections: int = 256,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._key = api_key
        self._tokenizer = tokenizer
        self._parameters = Parameters(model, sampling, adapters)
        self._adapters = adapters
        self._hold_off = HoldOff()
        self._timeouts = timeouts or Timeouts()
        self._max_connections = max_connections
        self._proxy = _proxy_for(self._url)
        self._client: aiohttp.ClientSession | None = None
        self._running = 0

    @property
    def info(self) -> EngineInfo:
        """The model is named as the server knows it."""
        return EngineInfo(
            engine="openai",
            model=self._model,
            device="remote",
            limits={"max_model_len": self._tokenizer.max_model_len},
            adapters=tuple(self._adapters),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer that measures prompts."""
        return self._tokenizer

    def load(self) -> Load:
        """Requests in flight; the share that waits in the server's queue is unknown."""
        return Load(running=self._running)

    def health(self) -> Health:
        """Of this process, which is well; each call finds out about the server's."""
        return Health.SERVING

    async def start(self) -> None:
        """Make the pool. The server is not called: it may come up later than we do."""
        # In a thread, because reading the certificates takes 100 ms.
        trusted = (
            await asyncio.to_thread(tls_trust.context) if self._url.startswith("https") else True
        )
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=trusted,
                limit=self._max_connections,
                keepalive_timeout=_KEEPALIVE_S,
                # Where aiodns is installed, the default reads neither mDNS nor the like.
                resolver=aiohttp.ThreadedResolver(),
            ),
            # Reading is timed by token, not by byte: see `_within`.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._client is not None:
            await self._client.close()

    async def stream(
        self, prompt: Prompt, request: Request, deadline: Deadline
    ) -> AsyncGenerator[Piece | End]:
        """See `LanguageModel.stream`."""
        self._hold_off.check()
        waiting = Waiting(self._timeouts, deadline)
        without: set[str] = set()
        self._running += 1
        try:
            while True:
                body = self._parameters.body(prompt, request, without)
                try:
                    async with aclosing(self._completed(body, waiting)) as pieces:
                        async for piece in pieces:
                            yield piece
                    return
                except ParameterRefused as refused:
                    # Each is named at most once, so that this ends.
                    if refused.name in without:
                        raise
                    self._drop(body, refused, without)
        except RaglanError as error:
            if error.cause:
                log.warning("the LLM server failed", message=error.message, reason=error.cause)
            raise
        finally:
            self._running -= 1

    def _drop(self, body: dict[str, Any], refused: ParameterRefused, without: set[str]) -> None:
        without.add(refused.name)
        if refused.always:
            self._parameters.remember(body, refused.name)
        log.warning(
            "the LLM server refuses a parameter",
            parameter=refused.name,
            remembered=refused.always,
            reason=refused.cause,
        )

    async def _completed(
        self, body: dict[str, Any], waiting: Waiting
    ) -> AsyncGenerator[Piece | End]:
        """One request and its answer."""
        answer = Completion(secret=self._key.get_secret_value())
        try:
            async with (
                self._opened(body, waiting) as response,
                aclosing(response.frames(answer)) as frames,
            ):
                async for arrived in frames:
                    pieces, error = answer.read_all(arrived)
                    for piece in pieces:
                        yield piece
                    if error is not None:
                        raise error
        except aiohttp.ClientError as error:
            # A server that has said why the answer ends has sent all of it.
            if not answer.is_finished:
                raise openai_errors.from_transport(error, begun=answer.begun) from None
        yield answer.end()

    @asynccontextmanager
    async def _opened(self, body: dict[str, Any], waiting: Waiting) -> AsyncIterator[ResponseBody]:
        if self._client is None:
            raise Unavailable("The generator has not started.")
        with http_span("POST", self._url) as span:
            sending = self._client.post(
                self._url,
                json=body,
                headers=self._headers() | trace_headers(),
                allow_redirects=False,
                proxy=self._proxy,
            )
            async with waiting.within(waiting.first, begun=False):
                response = await sending
            span.set_attribute(semconv.HTTP_STATUS, response.status)
            try:
                answered = ResponseBody(response.content, waiting)
                if response.status != _OK:
                    error = openai_errors.from_response(
                        response.status,
                        await answered.error_body(),
                        response.headers,
                        parameters=self._parameters.optional(body),
                        has_schema="response_format" in body,
                        secret=self._key.get_secret_value(),
                    )
                    self._hold_off.note(error, http_errors.retry_after(response.headers))
                    raise error
                yield answered
            finally:
                # Closes the connection if the answer is not at its end: the server stops writing.
                response.close()

    def _headers(self) -> dict[str, str]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if key := self._key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        return headers


def _proxy_for(url: str) -> str | None:
    """Return the proxy for `url` by `http_proxy`, `https_proxy` and `no_proxy`; read once."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urllib.request.getproxies().get(parts.scheme)
