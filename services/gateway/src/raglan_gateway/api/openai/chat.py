"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from raglan_gateway.api import schemas, sse
from raglan_gateway.api.openai import chat_replies, documented
from raglan_gateway.api.openai.lenient import Lenient, ListOf, QueryOptions, query_request
from raglan_gateway.api.openai.messages import Conversation, Message, conversation
from raglan_gateway.api.openai.models import Models
from raglan_gateway.api.query import Answering, Class
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.settings import GatewaySettings

_FORM: Final = sse.DataOnly()
_STREAM: Final = "Chunks of a chat completion as `data`; the last is `[DONE]`."
_NAMES: Final = {
    "query": "messages",
    "history": "messages",
    "max_tokens": "max_completion_tokens",
    "json_schema": "response_format.json_schema",
}
NO_EFFECT: Final = frozenset(
    {
        "user", "store", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
"""Fields of billing, caching and bookkeeping: without them the answer is the same."""


class StreamOptions(Lenient):
    """Options of a stream."""

    include_usage: bool | None = None


class JsonSchema(Lenient):
    """A schema with its name."""

    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(Lenient):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Lenient):
    """The body of a chat completion."""

    refused: ClassVar = {
        "tool_choice": "tools may be offered, and none is called: leave it out",
        "function_call": "leave it out",
        "logprobs": "leave it out",
        "top_logprobs": "leave it out",
        "modalities": "the answer is text",
        "audio": "the answer is text",
        "web_search_options": "answers rest on the collections",
    }
    accepted: ClassVar = NO_EFFECT

    model: str
    messages: ListOf[Message]
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | ListOf[str] | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    raglan: QueryOptions | None = None


def router(models: Models, answering: Answering, settings: GatewaySettings) -> APIRouter:
    """The route of chat completions."""
    routes = documented.router()

    @routes.post(
        "/v1/chat/completions", **documented.returns(documented.ChatCompletion, streams=_STREAM)
    )
    async def create_chat_completion(
        body: ChatRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Answer the last message, with citations."""
        query, ignored = to_query(models, body)
        head = chat_replies.Head(body.model, int(time.time()), str(request.base_url), ignored)
        if query.stream:
            begun = await answering.stream(query, request, x_raglan_priority)
            usage = bool(body.stream_options and body.stream_options.include_usage)
            chunks = chat_replies.chunks(begun, head, include_usage=usage)
            return sse.response(chunks, heartbeat_s=settings.heartbeat_s, form=_FORM)
        reply = await answering.answer(query, request, x_raglan_priority)
        answered = schemas.QueryReply.model_validate_json(reply)
        return JSONResponse(chat_replies.completion(answered, head))

    return routes


def to_query(models: Models, body: ChatRequest) -> tuple[schemas.QueryRequest, list[str]]:
    """Return the query of a chat, and what it leaves out of it.

    Raises:
        InvalidParameter: a field is not supported, or outside of its limits.
        UnknownModel: there is no such model.
    """
    ignored = body.check_unknown()
    if body.n not in (None, 1):
        raise InvalidParameter(f"n is {body.n}; one answer is given to a request (1).", param="n")
    talk: Conversation = conversation(body.messages)
    fields = {
        "query": talk.question,
        "history": talk.history,
        "profile": models.profile(body.model),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "seed": body.seed,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
        "max_tokens": (
            body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        ),
        "json_schema": _schema(body.response_format),
        "stream": bool(body.stream),
    }
    query = query_request(fields, body.raglan, _NAMES)
    return query, [*talk.ignored, *(f"{name} has no effect." for name in ignored)]


def _schema(form: ResponseFormat | None) -> dict[str, Any] | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if form.json_schema is None or not form.json_schema.schema_:
        raise InvalidParameter(
            "response_format.json_schema.schema is missing.",
            param="response_format.json_schema.schema",
        )
    return form.json_schema.schema_
