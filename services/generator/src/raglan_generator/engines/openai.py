"""Any server that speaks OpenAI's `/chat/completions`, streamed over one keep-alive pool."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpx
import httpx_sse
from pydantic import SecretStr
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Unavailable

from raglan_generator.citing import Citer
from raglan_generator.engines import openai_errors
from raglan_generator.generation import (
    ABSTENTION,
    Delta,
    EngineInfo,
    Event,
    Finished,
    FinishReason,
    Request,
    Usage,
)
from raglan_generator.prompt import messages

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


class OpenAIEngine:
    """Asks one server for one model. Never retries: what was sent once stands.

    Usage is the server's; from one that reports none, words between white space are counted.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: SecretStr,
        temperature: float = 0.0,
        timeouts: Timeouts | None = None,
        max_connections: int = 256,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._key = api_key
        self._temperature = temperature
        self._timeouts = timeouts or Timeouts()
        self._max_connections = max_connections
        self._client: httpx.AsyncClient | None = None

    @property
    def info(self) -> EngineInfo:
        """The model is named as the server knows it."""
        return EngineInfo(engine="openai", model=self._model, device="remote")

    async def start(self) -> None:
        """Make the pool. The server is not called: it may come up later than we do."""
        # In a thread, because reading the TLS certificates takes 100 ms.
        self._client = await asyncio.to_thread(self._pool)

    async def close(self) -> None:
        """Close the pool."""
        if self._client is not None:
            await self._client.aclose()

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """See `Engine.generate`. Without passages it abstains and asks nobody."""
        started = time.monotonic_ns()
        if not any(passage.text.strip() for passage in request.passages):
            yield Delta(ABSTENTION)
            usage = Usage(0, len(ABSTENTION.split()))
            yield Finished(FinishReason.ABSTAINED, usage, 0.0, self._model)
            return
        citer, answer, words = Citer(request.passages), _Answer(), 0
        async with aclosing(self._texts(request, answer, deadline)) as texts:
            async for text in texts:
                words += len(text.split())
                for event in citer.feed(text):
                    yield event
        for event in citer.flush():
            yield event
        if citer.empty:
            raise Unavailable("The LLM server ended its answer without a word.")
        yield Finished(
            reason=_reason(answer, citer),
            usage=answer.usage or Usage(_words(request), words),
            confidence=citer.confidence(),
            model=self._model,
            compute_ns=time.monotonic_ns() - started,
        )

    async def _texts(
        self, request: Request, answer: _Answer, deadline: Deadline
    ) -> AsyncGenerator[str]:
        """The pieces of the model's text; `answer` is filled on the way."""
        try:
            first = deadline.within(self._timeouts.first_token_s)
            async with (
                self._opened(request, deadline, first) as source,
                aclosing(source.aiter_sse()) as frames,
            ):
                while True:
                    limit = deadline.within(self._timeouts.idle_s) if answer.begun else first
                    async with self._within(limit, deadline, begun=answer.begun):
                        frame = await anext(frames, None)
                    if frame is None:
                        break
                    if frame.data == "[DONE]":
                        answer.finish_reason = answer.finish_reason or "stop"
                        await _read_to_end(frames)
                        break
                    if text := self._read(frame.data, answer):
                        yield text
        except httpx_sse.SSEError:
            raise Unavailable(
                "The LLM server did not answer with an event stream; "
                "is RAGLAN_GENERATOR_BASE_URL its /v1 address?"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise openai_errors.from_transport(error, begun=answer.begun) from None
        if not answer.finish_reason:
            raise Unavailable("The LLM server closed the stream before the end of the answer.")
        if answer.finish_reason == "content_filter":
            raise Internal("The LLM server withheld the answer (content_filter).")

    def _pool(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            # Reading is timed by token, not by byte: see `_within`.
            timeout=httpx.Timeout(self._timeouts.connect_s, read=None),
            limits=httpx.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
        )

    @asynccontextmanager
    async def _opened(
        self, request: Request, deadline: Deadline, first: Deadline
    ) -> AsyncIterator[httpx_sse.EventSource]:
        if self._client is None:
            raise Unavailable("The generator has not started.")
        sending = self._client.build_request(
            "POST", self._url, json=self._body(request), headers=self._headers()
        )
        async with self._within(first, deadline, begun=False):
            response = await self._client.send(sending, stream=True)
        try:
            if response.status_code != httpx.codes.OK:
                async with self._within(first, deadline, begun=False):
                    body = await _json_of(response)
                raise openai_errors.from_response(
                    response.status_code,
                    body,
                    response.headers,
                    model=self._model,
                    secret=self._key.get_secret_value(),
                )
            yield httpx_sse.EventSource(response)
        finally:
            # Closes the connection if the answer is not at its end: the server stops writing.
            await response.aclose()

    @asynccontextmanager
    async def _within(
        self, limit: Deadline, deadline: Deadline, *, begun: bool
    ) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit.remaining_s()):
                yield
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

    def _read(self, data: str, answer: _Answer) -> str:
        """The text in one frame; the rest of it goes into `answer`."""
        try:
            frame = json.loads(data)
            if error := frame.get("error"):
                raise openai_errors.from_frame(
                    error, model=self._model, secret=self._key.get_secret_value()
                )
            if usage := frame.get("usage"):
                answer.usage = Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
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

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": messages(request),
            "max_tokens": request.max_tokens,
            "temperature": self._temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _headers(self) -> dict[str, str]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if key := self._key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        return headers


def _reason(answer: _Answer, citer: Citer) -> FinishReason:
    if citer.abstained:
        return FinishReason.ABSTAINED
    return FinishReason.LENGTH if answer.finish_reason == "length" else FinishReason.STOP


def _words(request: Request) -> int:
    return sum(len(message["content"].split()) for message in messages(request))


async def _read_to_end(frames: AsyncIterator[httpx_sse.ServerSentEvent]) -> None:
    """Let the response end by itself, which keeps its connection for the next one."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_TRAILER_S):
            async for _ in frames:
                pass


async def _json_of(response: httpx.Response) -> Any:
    """The body of an error, or None if it is no JSON or too long to be one."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            return None
    try:
        return json.loads(body)
    except ValueError:
        return None
