"""Any server that speaks OpenAI's `/chat/completions`, streamed over one keep-alive pool."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import certifi
from pydantic import SecretStr
from raglan import http_errors
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, RaglanError, Unavailable
from raglan.health import Health
from raglan.telemetry import semconv
from raglan.telemetry.http import http_span, trace_headers

from raglan_generator.engines import openai_errors
from raglan_generator.engines.event_data import EventData
from raglan_generator.generation import EngineInfo, FinishReason, Load, Request, Sampling, Usage
from raglan_generator.language_model import End, Prompt, Text, Tokenizer

_OK: Final = 200
_DONE: Final = "[DONE]"
_MAX_ERROR_BYTES: Final = 64 * 1024
_KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""
_TRAILER_S: Final = 0.05
"""What a server gets to end its response after [DONE], before the connection is given up."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, each besides the call's deadline."""

    connect_s: float = 2.0
    first_token_s: float = 5.0
    idle_s: float = 5.0


@dataclass(slots=True)
class _Answer:
    """What is known of an answer while it streams."""

    finish_reason: str = ""
    usage: Usage | None = None
    begun: bool = False

    def end(self) -> End:
        """The stream is over.

        Raises:
            Unavailable: it is, but not the answer.
            Internal: the server kept the answer to itself.
        """
        if not self.finish_reason:
            raise Unavailable("The LLM server closed the stream before the end of the answer.")
        if self.finish_reason == "content_filter":
            raise Internal("The LLM server withheld the answer (content_filter).")
        length = self.finish_reason == "length"
        return End(FinishReason.LENGTH if length else FinishReason.STOP, self.usage)


class OpenAIModel:
    """Asks one server for one model. Never retries: what was sent once stands."""

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
        """Args:
        tokenizer: what prompts are measured by.
        sampling: where a request leaves it open.
        adapters: further models of the server, by the name that a request gives them.
        """
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._key = api_key
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._adapters = adapters
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
        """What prompts are measured by."""
        return self._tokenizer

    def load(self) -> Load:
        """What is on its way to the server or back; how much of it waits there, only it knows."""
        return Load(running=self._running)

    def health(self) -> Health:
        """Of this process, which is well; each call finds out about the server's."""
        return Health.SERVING

    async def start(self) -> None:
        """Make the pool. The server is not called: it may come up later than we do."""
        # In a thread, because reading the certificates takes 100 ms.
        trusted = await asyncio.to_thread(_certificates) if self._url.startswith("https") else True
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=trusted, limit=self._max_connections, keepalive_timeout=_KEEPALIVE_S
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
    ) -> AsyncGenerator[Text | End]:
        """See `LanguageModel.stream`."""
        answer = _Answer()
        self._running += 1
        try:
            first = deadline.within(self._timeouts.first_token_s)
            async with (
                self._opened(self._body(prompt, request), deadline, first) as source,
                aclosing(self._events(source, answer, deadline, first)) as events,
            ):
                async for arrived in events:
                    # Tokens that came together go on together: who is behind catches up so.
                    text, tokens, error = self._read_all(arrived, answer)
                    if text:
                        yield Text(text, tokens)
                    if error is not None:
                        raise error
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, begun=answer.begun) from None
        finally:
            self._running -= 1
        yield answer.end()

    @asynccontextmanager
    async def _opened(
        self, body: dict[str, Any], deadline: Deadline, first: Deadline
    ) -> AsyncIterator[aiohttp.StreamReader]:
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
            async with self._within(first, deadline, begun=False):
                response = await sending
            span.set_attribute(semconv.HTTP_STATUS, response.status)
            async with self._answering(response, deadline, first) as source:
                yield source

    @asynccontextmanager
    async def _answering(
        self, response: aiohttp.ClientResponse, deadline: Deadline, first: Deadline
    ) -> AsyncIterator[aiohttp.StreamReader]:
        try:
            if response.status != _OK:
                async with self._within(first, deadline, begun=False):
                    said = await _json_of(response.content)
                raise http_errors.from_response(
                    openai_errors.LLM_SERVER,
                    response.status,
                    said,
                    response.headers,
                    secret=self._key.get_secret_value(),
                )
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise Unavailable(
                    "The LLM server did not answer with an event stream; "
                    "is RAGLAN_GENERATOR_BASE_URL its /v1 address?"
                )
            yield response.content
        finally:
            # Closes the connection if the answer is not at its end: the server stops writing.
            response.close()

    async def _events(
        self, source: aiohttp.StreamReader, answer: _Answer, deadline: Deadline, first: Deadline
    ) -> AsyncGenerator[list[str]]:
        """The data of the events up to the last, those together that arrived together."""
        events, limit = EventData(), first
        while True:
            async with self._within(limit, deadline, begun=answer.begun):
                more = await source.readany()
            if not more:
                return
            arrived = events.feed(more)
            if not arrived:
                # Comments are not a sign of life of the model: only events move the limit.
                continue
            done = _DONE in arrived
            yield arrived[: arrived.index(_DONE)] if done else arrived
            if done:
                answer.finish_reason = answer.finish_reason or "stop"
                await _read_to_end(source)
                return
            limit = deadline.within(self._timeouts.idle_s) if answer.begun else first

    @asynccontextmanager
    async def _within(
        self, limit: Deadline, deadline: Deadline, *, begun: bool
    ) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit.remaining_s()):
                yield
        except aiohttp.ClientError:
            # Some of them are a TimeoutError as well.
            raise
        except TimeoutError:
            if limit.at >= deadline.at:
                raise DeadlineExceeded(
                    "The deadline passed before the LLM server had answered."
                ) from None
            what, seconds, setting = (
                ("no further token", self._timeouts.idle_s, "IDLE")
                if begun
                else ("no token", self._timeouts.first_token_s, "FIRST_TOKEN")
            )
            raise Unavailable(
                f"The LLM server sent {what} within {seconds:g} s "
                f"(RAGLAN_GENERATOR_{setting}_TIMEOUT_S)."
            ) from None

    def _read_all(self, arrived: list[str], answer: _Answer) -> tuple[str, int, RaglanError | None]:
        """Text and tokens up to the first frame that is an error, and that error."""
        texts: list[str] = []
        for data in arrived:
            try:
                text = self._read(data, answer)
            except RaglanError as error:
                return "".join(texts), len(texts), error
            if text:
                texts.append(text)
        return "".join(texts), len(texts), None

    def _read(self, data: str, answer: _Answer) -> str:
        """The text in one frame; the rest of it goes into `answer`."""
        try:
            frame = json.loads(data)
            if error := frame.get("error"):
                raise openai_errors.from_frame(error, secret=self._key.get_secret_value())
            if usage := frame.get("usage"):
                answer.usage = _usage(usage)
            text = ""
            for choice in frame.get("choices") or ():
                delta = choice.get("delta") or {}
                text += delta.get("content") or ""
                # A model that thinks first is at work, though it has said nothing yet.
                thinks = delta.get("reasoning_content") or delta.get("reasoning")
                answer.begun = answer.begun or bool(text or thinks)
                answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        except (ValueError, TypeError, AttributeError, KeyError):
            raise Unavailable("The LLM server sent a frame that is no chat completion.") from None
        return text

    def _body(self, prompt: Prompt, request: Request) -> dict[str, Any]:
        asked, default = request.sampling, self._sampling
        body: dict[str, Any] = {
            "model": self._adapters.get(request.adapter, self._model),
            "messages": prompt.messages,
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in ("temperature", "top_p", "seed"):
            value = getattr(asked, name)
            value = getattr(default, name) if value is None else value
            if value is not None:
                body[name] = value
        if asked.stop:
            body["stop"] = asked.stop
        if request.json_schema:
            schema = {"name": "answer", "schema": json.loads(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _headers(self) -> dict[str, str]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if key := self._key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        return headers


def _usage(reported: dict[str, Any]) -> Usage:
    details = reported.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(reported["prompt_tokens"]),
        completion_tokens=int(reported["completion_tokens"]),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


async def _read_to_end(source: aiohttp.StreamReader) -> None:
    """Let the response end by itself, which keeps its connection for the next one."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_TRAILER_S):
            while await source.readany():
                pass


async def _json_of(source: aiohttp.StreamReader) -> Any:
    """The body of an error, or None if it is no JSON or too long to be one."""
    body = b""
    while more := await source.readany():
        body += more
        if len(body) > _MAX_ERROR_BYTES:
            return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def _certificates() -> ssl.SSLContext:
    """What https servers are checked against: the operator's, else certifi's."""
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())


def _proxy_for(url: str) -> str | None:
    """As `http_proxy`, `https_proxy` and `no_proxy` say; read once, not with every request."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urllib.request.getproxies().get(parts.scheme)
