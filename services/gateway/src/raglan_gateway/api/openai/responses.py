"""`POST /v1/responses`, with the tool `file_search` over collections."""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from raglan.identifiers import shortened

from raglan_gateway.api import schemas, sse
from raglan_gateway.api.openai import documented, response_replies
from raglan_gateway.api.openai.chat import NO_EFFECT
from raglan_gateway.api.openai.lenient import Lenient, ListOf, QueryOptions, query_request
from raglan_gateway.api.openai.messages import Conversation, Message, conversation
from raglan_gateway.api.openai.models import Models
from raglan_gateway.api.openai.vector_filters import RankingOptions, converted
from raglan_gateway.api.query import Answering, Class
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.settings import GatewaySettings

_FORM: Final = sse.DataOnly()
_STREAM: Final = "Events of a response, each with its `type`."
_NAMES: Final = {
    "query": "input",
    "history": "input",
    "max_tokens": "max_output_tokens",
    "json_schema": "text.format.schema",
    "collections": "tools[0].vector_store_ids",
    "filter": "tools[0].filters",
    "top_k": "tools[0].max_num_results",
    "min_score": "tools[0].ranking_options.score_threshold",
}
_RESULTS: Final = "file_search_call.results"
_OURS: Final = frozenset({"reasoning", "file_search_call"})
"""Items of earlier replies that clients send back; the answer does not depend on them."""


class FileSearch(Lenient):
    """The tool. Its vector stores are collections."""

    type: str
    vector_store_ids: ListOf[str] | None = None
    filters: dict[str, Any] | None = None
    max_num_results: int | None = None
    ranking_options: RankingOptions | None = None


class TextFormat(Lenient):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class TextOptions(Lenient):
    """Options of the text."""

    format: TextFormat | None = None


class ResponseRequest(Lenient):
    """The body of a response."""

    refused: ClassVar = {
        "previous_response_id": "responses are not kept; send the earlier messages as input",
        "conversation": "responses are not kept; send the earlier messages as input",
        "background": "leave it out",
        "prompt": "leave it out",
        "tool_choice": "leave it out; file_search always runs",
        "top_logprobs": "leave it out",
    }
    accepted: ClassVar = NO_EFFECT | {"truncation"}

    model: str
    input: str | ListOf[dict[str, Any]]
    instructions: str | None = None
    tools: ListOf[FileSearch] | None = None
    include: ListOf[str] | None = None
    text: TextOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    raglan: QueryOptions | None = None


def router(models: Models, answering: Answering, settings: GatewaySettings) -> APIRouter:
    """The route of responses."""
    routes = documented.router()

    @routes.post("/v1/responses", **documented.returns(documented.ModelResponse, streams=_STREAM))
    async def create_response(
        body: ResponseRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Answer the input from the vector stores, with citations of files."""
        query, ignored = to_query(models, body)
        head = response_replies.Head(
            model=body.model,
            created=int(time.time()),
            query=query.query,
            echoed=_echoed(body),
            ignored=ignored,
            with_results=_RESULTS in (body.include or ()),
        )
        if query.stream:
            begun = await answering.stream(query, request, x_raglan_priority)
            events = response_replies.events(begun, head)
            return sse.response(events, heartbeat_s=settings.heartbeat_s, form=_FORM)
        reply = await answering.answer(query, request, x_raglan_priority)
        answered = schemas.QueryReply.model_validate_json(reply)
        return JSONResponse(response_replies.response(answered, head))

    return routes


def to_query(models: Models, body: ResponseRequest) -> tuple[schemas.QueryRequest, list[str]]:
    """Return the query of a response, and what it leaves out of the request.

    Raises:
        InvalidParameter: a field is not supported, or outside of its limits.
        UnknownModel: there is no such model.
    """
    ignored = body.check_unknown()
    talk = _conversation(body)
    form = body.text.format if body.text else None
    fields: dict[str, Any] = {
        "query": talk.question,
        "history": talk.history,
        "profile": models.profile(body.model),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": body.max_output_tokens,
        "json_schema": _schema(form),
        "stream": bool(body.stream),
        **_search(body.tools or []),
    }
    query = query_request(fields, body.raglan, _NAMES)
    return query, [*talk.ignored, *(f"{name} has no effect." for name in ignored)]


def _conversation(body: ResponseRequest) -> Conversation:
    if isinstance(body.input, str):
        messages = [Message(role="user", content=body.input)]
    else:
        messages = [
            _message(item, f"input[{number}]")
            for number, item in enumerate(body.input)
            if item.get("type") not in _OURS
        ]
    found = conversation(messages, "input")
    if body.instructions:
        found.ignored.append(
            "instructions are not followed: the generator has its own prompt, and answers from "
            "the passages only."
        )
    return found


def _message(item: dict[str, Any], where: str) -> Message:
    kind = item.get("type", "message")
    if kind != "message":
        shown = shortened(kind) if isinstance(kind, str) else repr(kind)[:40]
        raise InvalidParameter(
            f"{where} is of type {shown}, which is not supported; send messages.",
            param=where,
            code="unsupported_value",
        )
    if item.get("role") not in ("system", "developer", "user", "assistant"):
        raise InvalidParameter(
            f"{where}.role is none of system, developer, user, assistant.", param=f"{where}.role"
        )
    content = item.get("content")
    if not isinstance(content, str) and not (
        isinstance(content, list) and all(isinstance(part, dict) for part in content)
    ):
        raise InvalidParameter(
            f"{where}.content is neither text nor a list of parts.", param=f"{where}.content"
        )
    return Message(role=item["role"], content=content)


def _search(tools: ListOf[FileSearch]) -> dict[str, Any]:
    """Return the fields of a query that the tool decides."""
    for number, tool in enumerate(tools):
        if tool.type != "file_search" or number:
            said = "is the second one" if tool.type == "file_search" else "is not supported"
            raise InvalidParameter(
                f"tools[{number}] of type {shortened(tool.type)} {said}; send one file_search.",
                param=f"tools[{number}]",
                code="unsupported_value",
            )
    if not tools:
        return {}
    tool = tools[0]
    if not tool.vector_store_ids:
        raise InvalidParameter(
            "tools[0].vector_store_ids is empty; name the collections to search.",
            param="tools[0].vector_store_ids",
        )
    threshold = tool.ranking_options.score_threshold if tool.ranking_options else None
    return {
        "collections": tool.vector_store_ids,
        "filter": converted(tool.filters, "tools[0].filters") if tool.filters else None,
        "top_k": tool.max_num_results,
        "min_score": threshold or None,
    }


def _schema(form: TextFormat | None) -> dict[str, Any] | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if not form.schema_:
        raise InvalidParameter("text.format.schema is missing.", param="text.format.schema")
    return form.schema_


def _echoed(body: ResponseRequest) -> dict[str, Any]:
    """Return the fields of a request that a response repeats."""
    form = body.text.format if body.text else None
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "temperature": body.temperature,
        "top_p": body.top_p,
        "text": {"format": form.model_dump(by_alias=True) if form else {"type": "text"}},
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()],
    }
