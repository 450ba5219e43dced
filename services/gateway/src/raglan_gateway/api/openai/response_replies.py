"""Replies of `/v1/query` as responses of OpenAI's API, and its events as theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from raglan.telemetry import context as request_context

from raglan_gateway.api import schemas, sse
from raglan_gateway.api.openai.chat_replies import MOVED, late_problem, marker_place
from raglan_gateway.api.openai.vector_results import search_result

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True, slots=True)
class Head:
    """Fields that all pieces of one response share."""

    model: str
    created: int
    query: str
    echoed: dict[str, Any]
    """Fields of the request, as the response repeats them."""
    ignored: list[str]
    with_results: bool
    """True if the call of the tool shows what it found."""
    id: str = field(default_factory=request_context.request_id)


def response(reply: schemas.QueryReply, head: Head) -> dict[str, Any]:
    """Build a response."""
    output = [_call(head, reply.passages)]
    if reply.thinking:
        output.append(_reasoning(head, reply.thinking))
    annotations = [
        _annotation(each, marker_place(reply.answer, each.marker)[0]) for each in reply.citations
    ]
    final = reply.model_dump(mode="json")
    output.append(_message(head, reply.answer, annotations, _status(final)))
    return _ended(head, output, final)


async def events(
    events: AsyncGenerator[sse.Event, None], head: Head
) -> AsyncGenerator[sse.Event, None]:
    """Turn the events of a query into those of a response; closes `events`."""
    made = _Events(head)
    async with aclosing(events):
        async for event in events:
            for number, fields in made.of(event):
                named = {"type": fields.pop("type"), "sequence_number": number, **fields}
                text = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
                yield sse.Event(named["type"], text)


class _Events:
    """Events of one stream, and its output so far."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._number = -1
        self._output: list[dict[str, Any]] = []
        """Items that are complete."""
        self._open: Literal["", "reasoning", "message"] = ""
        self._text = ""
        self._annotations: list[dict[str, Any]] = []

    def of(self, event: sse.Event) -> Iterator[tuple[int, dict[str, Any]]]:
        for fields in self._of(event):
            self._number += 1
            yield self._number, fields

    def _of(self, event: sse.Event) -> Iterator[dict[str, Any]]:
        match event.data:
            case schemas.StreamStart():
                yield from self._begin()
            case schemas.StreamSources(passages=passages):
                yield from self._found(passages)
            case schemas.StreamThinking(text=text):
                yield from self._delta("reasoning", text)
            case schemas.StreamDelta(text=text):
                yield from self._delta("message", text)
            case schemas.Citation() as citation:
                yield from self._cited(citation)
            case schemas.Problem() as problem:
                yield self._failed(problem)
            case schemas.QueryReply() as reply:
                yield from self._end(reply.model_dump(mode="json"))
            case str(text) if event.name == "final":
                yield from self._end(json.loads(text))
            case _ if event.name == "restart":
                # What was sent as the answer was reasoning: it stays, as an item that is over.
                yield from self._close("incomplete")

    def _begin(self) -> Iterator[dict[str, Any]]:
        begun = _response(self._head, "in_progress", [])
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        call = _call(self._head, []) | {"status": "in_progress", "results": None}
        yield {"type": "response.output_item.added", "output_index": 0, "item": call}
        for state in ("in_progress", "searching"):
            yield self._of_call(state)

    def _found(self, passages: Sequence[schemas.Passage]) -> Iterator[dict[str, Any]]:
        if self._output:  # a stale answer repeats them
            return
        yield self._of_call("completed")
        call = _call(self._head, passages)
        self._output.append(call)
        yield {"type": "response.output_item.done", "output_index": 0, "item": call}

    def _of_call(self, state: str) -> dict[str, Any]:
        place = {"output_index": 0, "item_id": f"fs_{self._head.id}"}
        return {"type": f"response.file_search_call.{state}", **place}

    def _delta(self, kind: Literal["reasoning", "message"], text: str) -> Iterator[dict[str, Any]]:
        if self._open != kind:
            yield from self._close()
            yield from self._open_item(kind)
        self._text += text
        name = "output_text" if kind == "message" else "reasoning_text"
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        yield {"type": f"response.{name}.delta", **self._place(), "delta": text, **more}

    def _open_item(self, kind: Literal["reasoning", "message"]) -> Iterator[dict[str, Any]]:
        self._open = kind
        place = {"output_index": len(self._output)}
        item = self._item("in_progress") | {"content": []}
        yield {"type": "response.output_item.added", **place, "item": item}
        if kind == "message":
            part = _text_part("", [])
            yield {"type": "response.content_part.added", **self._place(), "part": part}

    def _close(self, status: str = "completed") -> Iterator[dict[str, Any]]:
        if not self._open:
            return
        item, place = self._item(status), self._place()
        if self._open == "message":
            done = {"text": self._text, "logprobs": []}
            yield {"type": "response.output_text.done", **place, **done}
            yield {"type": "response.content_part.done", **place, "part": item["content"][0]}
        else:
            yield {"type": "response.reasoning_text.done", **place, "text": self._text}
        index = {"output_index": len(self._output)}
        yield {"type": "response.output_item.done", **index, "item": item}
        self._output.append(item)
        self._open, self._text, self._annotations = "", "", []

    def _cited(self, citation: schemas.Citation) -> Iterator[dict[str, Any]]:
        begin = marker_place(self._text, citation.marker)[0]
        self._annotations.append(_annotation(citation, begin))
        yield {
            "type": "response.output_text.annotation.added",
            **self._place(),
            "annotation_index": len(self._annotations) - 1,
            "annotation": self._annotations[-1],
        }

    def _end(self, final: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._open != "message":  # an answer without text
            yield from self._delta("message", "")
        yield from self._close(_status(final))
        ended = _ended(self._head, self._output, final)
        yield {"type": f"response.{ended['status']}", "response": ended}

    def _failed(self, problem: schemas.Problem) -> dict[str, Any]:
        late = late_problem(problem)
        known = late["code"] == "rate_limit_exceeded"
        code = "rate_limit_exceeded" if known else "server_error"
        error = {"code": code, "message": late["message"]}
        failed = _response(self._head, "failed", self._output, error=error)
        return {"type": "response.failed", "response": failed}

    def _place(self) -> dict[str, Any]:
        item_id = self._item("in_progress")["id"]
        return {"item_id": item_id, "output_index": len(self._output), "content_index": 0}

    def _item(self, status: str) -> dict[str, Any]:
        number = len(self._output)
        if self._open == "reasoning":
            return _reasoning(self._head, self._text, number, status)
        return _message(self._head, self._text, self._annotations, status, number)


def _response(
    head: Head,
    status: str,
    output: list[dict[str, Any]],
    *,
    error: dict[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "id": f"resp_{head.id}",
        "object": "response",
        "created_at": head.created,
        "status": status,
        "background": False,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": head.model,
        "output": list(output),
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "tool_choice": "auto",
        "truncation": "disabled",
        "usage": None,
        **head.echoed,
    }


def _ended(head: Head, output: list[dict[str, Any]], final: dict[str, Any]) -> dict[str, Any]:
    """Build the response at its end, of the last event of a query."""
    used = final["usage"]
    reason = _INCOMPLETE.get(final["finish_reason"])
    ended = _response(head, _status(final), output, reason=reason)
    ended["usage"] = {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": used["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["prompt_tokens"] + used["completion_tokens"],
    }
    ended["raglan"] = {name: value for name, value in final.items() if name not in MOVED}
    ended["raglan"]["ignored"] = head.ignored
    return ended


def _status(final: dict[str, Any]) -> str:
    return "incomplete" if final["finish_reason"] in _INCOMPLETE else "completed"


def _call(head: Head, passages: Sequence[schemas.Passage]) -> dict[str, Any]:
    return {
        "id": f"fs_{head.id}",
        "type": "file_search_call",
        "status": "completed",
        "queries": [head.query],
        "results": [search_result(each) for each in passages] if head.with_results else None,
    }


def _reasoning(head: Head, text: str, number: int = 1, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"rs_{head.id}_{number}",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
        "status": status,
    }


def _message(
    head: Head, text: str, annotations: list[dict[str, Any]], status: str, number: int = 1
) -> dict[str, Any]:
    return {
        "id": f"msg_{head.id}_{number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [_text_part(text, annotations)],
    }


def _text_part(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def _annotation(citation: schemas.Citation, begin: int) -> dict[str, Any]:
    """Build the annotation of a citation, whose marker begins at `begin` in the text."""
    return {
        "type": "file_citation",
        "file_id": citation.document_id,
        "filename": citation.title or citation.document_id,
        "index": begin,
    }
