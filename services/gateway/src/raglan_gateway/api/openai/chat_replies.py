"""Replies of `/v1/query` as chat completions, and its events as chunks of them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from raglan import errors

from raglan_gateway import answer_id
from raglan_gateway.api import schemas, sse
from raglan_gateway.error_envelopes import late_problem as late

_FINISH: Final = {"abstained": "stop"}
MOVED: Final = frozenset({"id", "answer", "thinking", "finish_reason", "usage"})
"""Fields of a query's reply that have a place of their own in a completion."""
_LINKS: Final = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Head:
    """Fields that all pieces of one reply share."""

    model: str
    created: int
    base_url: str
    """Address at which the client reached the gateway; ends with a slash."""
    ignored: list[str]
    id: str = field(default_factory=lambda: f"chatcmpl-{answer_id.current()}")


def chunk_metadata(passages: Sequence[schemas.Passage]) -> dict[str, dict[str, Any]]:
    """Return the metadata of each chunk of the passages, by its id."""
    return {id_: each.metadata for each in passages for id_ in each.chunk_ids}


def completion(reply: schemas.QueryReply, head: Head) -> dict[str, Any]:
    """Build a chat completion."""
    metadata = chunk_metadata(reply.passages)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.answer,
        "refusal": None,
        "annotations": [
            annotation(
                each, marker_place(reply.answer, each.marker), metadata.get(each.chunk_id, {}), head
            )
            for each in reply.citations
        ],
    }
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _FINISH.get(reply.finish_reason, reply.finish_reason),
    }
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [choice],
        "usage": usage(reply.usage.model_dump()),
        "raglan": reply.model_dump(mode="json", exclude=set(MOVED)) | {"ignored": head.ignored},
    }


async def chunks(
    events: AsyncGenerator[sse.Event, None], head: Head, *, include_usage: bool
) -> AsyncGenerator[sse.Event, None]:
    """Turn the events of a query into the chunks of a chat completion; closes `events`."""
    made = _Chunks(head, include_usage)
    async with aclosing(events):
        async for event in events:
            for chunk in made.of(event):
                yield chunk


class _Chunks:
    """Chunks of one stream, and its text so far."""

    def __init__(self, head: Head, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._text = ""
        self._metadata: dict[str, dict[str, Any]] = {}

    def of(self, event: sse.Event) -> list[sse.Event]:
        data = event.data
        match data:
            case schemas.StreamStart():
                return [self._chunk({"role": "assistant", "content": "", "refusal": None})]
            case schemas.StreamSources():
                self._metadata = chunk_metadata(data.passages)
                return [self._chunk({}, raglan=data.model_dump(mode="json"))]
            case schemas.StreamThinking():
                return [self._chunk({"reasoning_content": data.text})]
            case schemas.StreamDelta():
                self._text += data.text
                return [self._chunk({"content": data.text})]
            case schemas.Citation():
                return [self._chunk({"annotations": [self._annotation(data)]})]
            case schemas.Problem():
                return [_error(data)]
        match event.name:
            case "restart":
                self._text = ""
                return [self._chunk({}, raglan={"restart": True})]
            case "final":
                whole = data.model_dump_json() if isinstance(data, schemas.QueryReply) else data
                assert isinstance(whole, str)
                return self._last(json.loads(whole))
            case "done":
                return [sse.Event("", "[DONE]")]
        return []

    def _annotation(self, citation: schemas.Citation) -> dict[str, Any]:
        place = marker_place(self._text, citation.marker)
        metadata = self._metadata.get(citation.chunk_id, {})
        return annotation(citation, place, metadata, self._head)

    def _last(self, final: dict[str, Any]) -> list[sse.Event]:
        reason = final["finish_reason"]
        # The passages have been sent with the sources.
        raglan = {k: v for k, v in final.items() if k not in MOVED and k != "passages"}
        raglan["ignored"] = self._head.ignored
        last = [self._chunk({}, finish=_FINISH.get(reason, reason), raglan=raglan)]
        if self._include_usage:
            last.append(self._event({"choices": [], "usage": usage(final["usage"])}))
        return last

    def _chunk(
        self, delta: dict[str, Any], *, finish: str | None = None, raglan: Any = None
    ) -> sse.Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        fields: dict[str, Any] = {"choices": [choice]}
        if self._include_usage:
            fields["usage"] = None
        if raglan is not None:
            fields["raglan"] = raglan
        return self._event(fields)

    def _event(self, fields: dict[str, Any]) -> sse.Event:
        chunk = {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._head.model,
            **fields,
        }
        return sse.Event("", json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))


def annotation(
    citation: schemas.Citation,
    place: tuple[int, int],
    metadata: Mapping[str, Any],
    head: Head,
) -> dict[str, Any]:
    """Build the annotation of a citation, the only kind that a chat's message may have.

    Args:
        citation: of the answer.
        place: where its marker begins and ends in the answer, in characters.
        metadata: of the cited document; its `url`, if it is one, is the link.
        head: of the reply.
    """
    url = metadata.get("url")
    if not isinstance(url, str) or not url.startswith(_LINKS):
        url = (
            f"{head.base_url}v1/collections/{citation.collection}/documents/"
            f"{quote(citation.document_id)}"
        )
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": place[0],
            "end_index": place[1],
            "title": citation.title or citation.document_id,
            "url": url,
        },
    }


def marker_place(text: str, marker: int) -> tuple[int, int]:
    """Return where a citation's marker begins and ends in `text`; its end where it has none."""
    mark = f"[{marker}]"
    begin = text.find(mark)
    return (begin, begin + len(mark)) if begin >= 0 else (len(text), len(text))


def usage(used: Mapping[str, int]) -> dict[str, Any]:
    """Build OpenAI's usage of `schemas.Usage`."""
    return {
        "prompt_tokens": used["prompt_tokens"],
        "completion_tokens": used["completion_tokens"],
        "total_tokens": used["prompt_tokens"] + used["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": used["cached_tokens"]},
    }


def _error(problem: schemas.Problem) -> sse.Event:
    return sse.Event("", json.dumps({"error": late_problem(problem)}))


def late_problem(problem: schemas.Problem) -> dict[str, str | None]:
    """Return OpenAI's error of an error in the middle of a stream."""
    error = errors.from_status(problem.code, problem.message, said=problem.type)
    return late(error)
