"""Forty shapes of streams and replies that servers of language models send, and what comes of each.

Each was seen in the wild; the server here sends it byte for byte over a real socket.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from raglan import errors
from raglan.deadline import Deadline
from raglan_generator.answering import Answering
from raglan_generator.engines.openai_response import Timeouts
from raglan_generator.generation import (
    Citation,
    Delta,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
    Restart,
    Thinking,
    Usage,
)

KEY = "sk-very-secret"
TEXT = "The hotel limit is 120 euro [1]."
PASSAGES = (
    Passage("Hotel costs are refunded up to 120 euro a night.", title="Policy"),
    Passage("In 2019 it was 90 euro.", title="Old policy"),
    Passage("Use a[1] and x[2]. Hotel limit array.", title="Arrays"),
)
ASKED = Request("What is the hotel limit?", PASSAGES, max_tokens=64)


def event(value: object, ascii_only: bool = False) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=ascii_only)}\n\n".encode()


def choice(reason: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def text(*pieces: str) -> bytes:
    return b"".join(choice(content=piece) for piece in pieces)


STOP = choice("stop")
DONE = b"data: [DONE]\n\n"
USAGE = event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
ONE = {"prompt_tokens": 1, "completion_tokens": 1}
EMOJI = "Gr\u00fc\u00dfe \U0001f600, 120 euro [1]."


@dataclass(frozen=True)
class Shape:
    """A reply, and the answer that it is; an `error` in its place where it is none."""

    body: bytes
    answer: str = TEXT
    thinking: str = ""
    reason: FinishReason = FinishReason.STOP
    error: str = ""
    status: int = 200
    kind: str = "text/event-stream"
    ends_connection: bool = False
    usage: Usage | None = None


def message(content: Any, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"content": content} | more, "finish_reason": reason}]
    }


def a_document(value: Any, kind: str = "application/json") -> Shape:
    return Shape(json.dumps(value).encode(), kind=kind)


SHAPES = {
    # Streams that are complete
    "plain": Shape(text(TEXT) + STOP + USAGE + DONE, usage=Usage(11, 7)),
    "role_first": Shape(choice(role="assistant", content=None) + text(TEXT) + STOP + DONE),
    "role_with_empty_text": Shape(choice(role="assistant", content="") + text(TEXT) + STOP + DONE),
    "no_done": Shape(text(TEXT) + STOP),
    "no_done_and_cut_connection": Shape(text(TEXT) + STOP, ends_connection=True),
    "no_usage": Shape(text(TEXT) + STOP + DONE),
    "broken_usage": Shape(text(TEXT) + STOP + event({"usage": {"prompt_tokens": None}}) + DONE),
    "usage_in_every_frame": Shape(
        event({"choices": [{"delta": {"content": TEXT}}], "usage": ONE}) + STOP + USAGE + DONE,
        usage=Usage(11, 7),
    ),
    "no_finish_reason": Shape(text(TEXT) + DONE),
    "no_blank_line_at_the_end": Shape((text(TEXT) + STOP).rstrip(b"\n")),
    "crlf": Shape((text(TEXT) + STOP + DONE).replace(b"\n", b"\r\n")),
    "comments_and_empty_data": Shape(
        b": ping\n\ndata:\n\n" + text(TEXT) + b": ping\n\n" + STOP + DONE
    ),
    "byte_order_mark": Shape(b"\xef\xbb\xbf" + text(TEXT) + STOP + DONE),
    "empty_choices_first": Shape(
        event({"choices": [], "prompt_filter_results": []}) + text(TEXT) + STOP + DONE
    ),
    "null_choices": Shape(event({"choices": None}) + text(TEXT) + STOP + DONE),
    "null_delta": Shape(event({"choices": [{"delta": None}]}) + text(TEXT) + STOP + DONE),
    "duplicate_final_frames": Shape(text(TEXT) + STOP + STOP + USAGE + USAGE + DONE),
    "whole_message_behind_the_deltas": Shape(text(TEXT) + event(message(TEXT)) + DONE),
    "second_choice": Shape(
        event({"choices": [{"delta": {"content": TEXT}}, {"index": 1, "delta": {"content": "x"}}]})
        + STOP
        + DONE
    ),
    "emoji_in_bytes": Shape(text(EMOJI) + STOP + DONE, answer=EMOJI),
    "emoji_in_halves": Shape(
        event({"choices": [{"delta": {"content": "Smile \ud83d"}}]}, True)
        + event({"choices": [{"delta": {"content": "\ude00 [1]."}}]}, True)
        + STOP
        + DONE,
        answer="Smile \U0001f600 [1].",
    ),
    "half_an_emoji": Shape(
        event({"choices": [{"delta": {"content": "Smile \ud83d"}}]}, True)
        + text(" [1].")
        + STOP
        + DONE,
        answer="Smile \ufffd [1].",
    ),
    "list_of_parts": Shape(
        choice(content=[{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}])
        + STOP
        + DONE
    ),
    "completion_text": Shape(event({"choices": [{"text": TEXT, "finish_reason": "stop"}]}) + DONE),
    "event_stream_as_plain_text": Shape(text(TEXT) + STOP + DONE, kind="text/plain"),
    # Reasoning
    "thinking_field": Shape(
        choice(reasoning_content="Hm.") + text(TEXT) + STOP + DONE, thinking="Hm."
    ),
    "thinking_field_of_newer_servers": Shape(
        choice(reasoning="Hm.") + text(TEXT) + STOP + DONE, thinking="Hm."
    ),
    "thinking_parts": Shape(
        choice(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}])
        + text(TEXT)
        + STOP
        + DONE,
        thinking="Hm.",
    ),
    "thinking_tags": Shape(
        text("<think>Hm [2].</think>\n\n", TEXT) + STOP + DONE, thinking="Hm [2]."
    ),
    "thinking_tags_in_pieces": Shape(
        text("<th", "ink>H", "m.</", "think>", TEXT) + STOP + DONE, thinking="Hm."
    ),
    "thinking_without_an_opening_tag": Shape(text("Hm [2].</think>\n", TEXT) + STOP + DONE),
    "thinking_only": Shape(
        choice(reasoning_content="Hm. " * 9) + choice("length") + DONE,
        thinking="Hm. " * 9,
        error="reasoned up to max_tokens",
    ),
    # Whole replies
    "json_reply": a_document(message(TEXT)),
    "json_reply_as_event_stream": a_document(message(TEXT), "text/event-stream"),
    "json_reply_without_a_reason": a_document(message(TEXT, None)),
    "json_reply_with_thinking": replace(
        a_document(message(TEXT, reasoning_content="Hm.")), thinking="Hm."
    ),
    "json_lines": Shape(
        b"\n".join(
            json.dumps({"choices": [{"delta": {"content": part}}]}).encode()
            for part in (TEXT[:7], TEXT[7:])
        ),
        kind="application/x-ndjson",
    ),
    # Answers that end early
    "length": Shape(
        text(TEXT, " And in Swi") + choice("length") + DONE,
        answer=TEXT + " And in Swi",
        reason=FinishReason.LENGTH,
    ),
    "length_by_another_name": Shape(
        text(TEXT) + choice("max_tokens") + DONE, reason=FinishReason.LENGTH
    ),
    "end_by_another_name": Shape(text(TEXT) + choice("eos_token") + DONE),
    "filtered": Shape(
        text(TEXT) + choice("content_filter") + DONE, reason=FinishReason.CONTENT_FILTER
    ),
    "filtered_at_once": Shape(choice("content_filter") + DONE, error="withheld"),
    "refusal": Shape(choice(refusal="I cannot help.") + STOP + DONE, error="withheld"),
    # No answers
    "empty": Shape(STOP + DONE, error="without a word"),
    "white_space": Shape(text(" \n", "  ") + STOP + DONE, error="without a word"),
    "markers_only": Shape(text("[1]", "[2].") + STOP + DONE, error="without a word"),
    "tool_calls_only": Shape(
        choice(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}])
        + choice("tool_calls")
        + DONE,
        error="without a word",
    ),
    "no_body": Shape(b"", error="did not answer with an event stream"),
    "web_page": Shape(b"<html>Sign in</html>", kind="text/html", error="event stream"),
    "web_page_as_event_stream": Shape(b"<html>Sign in</html>", error="event stream"),
    "no_json": Shape(b"data: {oops\n\n" + DONE, error="no chat completion"),
    "cut": Shape(
        text("The hotel limit is ", "120 eu"),
        answer="The hotel limit is 120 eu",
        error="before the end",
    ),
    # Errors
    "error_frame": Shape(
        event({"error": {"message": "quota exceeded"}}) + DONE, error="failed while"
    ),
    "error_frame_behind_text": Shape(
        text("The hotel") + event({"error": {"message": "engine died", "code": 500}}) + DONE,
        answer="The hotel",
        error="failed .500.",
    ),
    "error_of_old_vllm": Shape(
        event({"object": "error", "message": "quota exceeded", "code": 500}), error="failed .500."
    ),
    "error_event": Shape(
        b'event: error\ndata: {"message": "quota exceeded"}\n\n', error="failed while"
    ),
    "error_field": Shape(
        b'error: {"code": 500, "message": "quota exceeded"}\n\n', error="failed .500."
    ),
    "error_with_status_200": replace(
        a_document({"error": {"message": "quota exceeded"}}), error="failed while"
    ),
    "finish_reason_error": Shape(
        text("The hotel") + choice("error") + DONE, answer="The hotel", error="failed while"
    ),
    "out_of_memory": Shape(
        b'{"error":{"message":"CUDA out of memory"}}',
        status=500,
        kind="application/json",
        error="failed .500.",
    ),
    "plain_text_error": Shape(
        b"upstream connect error", status=503, kind="text/plain", error="failed .503."
    ),
}


@pytest.fixture
async def engine(llm, asking_openai) -> AsyncIterator[Answering]:
    timeouts = Timeouts(connect_s=1, first_token_s=2, idle_s=2)
    engine = asking_openai(llm.base_url, key=KEY, timeouts=timeouts)
    await engine.start()
    yield engine
    await engine.close()


async def answer(
    engine: Answering, request: Request = ASKED
) -> tuple[list[Event], Exception | None]:
    events: list[Event] = []
    async with aclosing(engine.generate(request, Deadline.after(5))) as generated:
        try:
            async for each in generated:
                events.append(each)
        except errors.RaglanError as error:
            return events, error
    return events, None


def standing(events: list[Event]) -> list[Event]:
    """Return the events a reader keeps at the end: a restart voids those before it."""
    restarts = [place for place, each in enumerate(events) if isinstance(each, Restart)]
    return events[restarts[-1] :] if restarts else events


def text_of(events: list[Event]) -> str:
    return "".join(each.text for each in standing(events) if isinstance(each, Delta))


def sending(shape: Shape, size: int):
    async def script(exchange) -> None:
        head = f"HTTP/1.1 {shape.status} X\r\ncontent-type: {shape.kind}\r\n"
        if shape.ends_connection:
            # As long as it is not: the connection ends before.
            await exchange.raw(f"{head}content-length: 999999\r\n\r\n".encode() + shape.body)
            exchange.writer.close()
            return
        await exchange.raw(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        places = [*range(0, len(shape.body), size), len(shape.body)]
        for begin, end in pairwise(places):
            await exchange.chunk(shape.body[begin:end])
            await asyncio.sleep(0)
        await exchange.end()

    return script


@pytest.mark.parametrize("size", [1, 100_000], ids=["bytewise", "whole"])
@pytest.mark.parametrize("name", SHAPES)
async def test_every_shape_is_the_answer_that_it_holds_or_an_error(engine, llm, name, size) -> None:
    shape = SHAPES[name]
    llm.script = sending(shape, size)
    events, error = await answer(engine)
    if shape.error:
        expected = "" if shape.answer == TEXT else shape.answer
        assert error is not None
        assert error.is_final
        assert isinstance(error, errors.Unavailable)
        assert re.search(shape.error, error.message)
    else:
        expected = shape.answer
        assert error is None
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.reason is shape.reason
        assert finished.usage == shape.usage or shape.usage is None
        [citation] = [each for each in standing(events) if isinstance(each, Citation)]
        assert (citation.marker, citation.passage_index) == (1, 0)
        assert [claim.markers for claim in finished.support.claims][:1] == [(1,)]
    assert text_of(events) == expected
    thinking = "".join(each.text for each in events if isinstance(each, Thinking))
    assert thinking == shape.thinking
    assert len(llm.exchanges) == 1, "nothing is sent twice"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out_of_memory", "CUDA out of memory"),
        ("error_frame", "quota exceeded"),
        ("error_frame_behind_text", "engine died"),
        ("error_event", "quota exceeded"),
        ("error_field", "quota exceeded"),
        ("error_with_status_200", "quota exceeded"),
        ("plain_text_error", "upstream connect error"),
    ],
)
async def test_what_the_server_said_is_the_cause_and_not_the_message(
    engine, llm, name, said
) -> None:
    llm.script = sending(SHAPES[name], 100_000)
    _, error = await answer(engine)
    assert isinstance(error, errors.RaglanError)
    assert said in error.cause
    assert said not in error.message


async def test_no_cause_holds_the_key(engine, llm) -> None:
    llm.script = sending(Shape(json.dumps({"error": f"bad key {KEY}"}).encode(), status=500), 1_000)
    _, error = await answer(engine)
    assert isinstance(error, errors.RaglanError)
    assert "bad key" in error.cause
    assert KEY not in error.cause


async def test_an_answer_is_not_lost_to_a_server_that_goes_silent_behind_it(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(text(TEXT) + STOP)
        await exchange.left()

    llm.script = script
    events, error = await answer(engine)
    assert (text_of(events), error) == (TEXT, None)


async def test_a_template_that_opens_the_block_is_learned(engine, llm) -> None:
    llm.script = sending(Shape(text("Hm", " [2].</think>", TEXT) + STOP + DONE), 100_000)
    first, _ = await answer(engine)
    second, _ = await answer(engine)
    assert text_of(first) == text_of(second) == TEXT
    assert not [each for each in second if isinstance(each, Restart)]
    assert "".join(e.text for e in second if isinstance(e, Thinking)) == "Hm [2]."
    llm.script = sending(SHAPES["plain"], 100_000)
    third, error = await answer(engine)
    assert (text_of(third), error) == (TEXT, None), "a model that has stopped reasoning is read"


async def test_reasoning_without_an_end_is_given_up(llm, asking_openai) -> None:
    engine = asking_openai(llm.base_url, max_thinking_chars=100)
    await engine.start()
    llm.script = sending(
        Shape(choice(reasoning_content="Hm. " * 10) * 9 + text(TEXT) + STOP), 10_000
    )
    events, error = await answer(engine)
    assert isinstance(error, errors.Unavailable)
    assert "MAX_THINKING_CHARS" in error.message
    assert not text_of(events)
    await engine.close()


async def test_reasoning_is_a_sign_of_life(llm, asking_openai) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        for _ in range(5):
            await exchange.chunk(choice(reasoning_content="Hm. "))
            await asyncio.sleep(0.1)
        await exchange.chunk(text(TEXT) + STOP + DONE)
        await exchange.end()

    llm.script = script
    engine = asking_openai(llm.base_url, timeouts=Timeouts(first_token_s=0.3, idle_s=0.3))
    await engine.start()
    events, error = await answer(engine, replace(ASKED, first_token_s=0.3))
    assert (text_of(events), error) == (TEXT, None)
    await engine.close()
