"""The `openai` client: chat completions and models, checked against the client's own types."""

from __future__ import annotations

import os
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

QUESTION = "How do I run the reranker on the second GPU?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def quotes() -> openai.OpenAI:
    return client("QUOTES_URL")


@pytest.fixture
def asks() -> openai.OpenAI:
    return client("ASKS_URL")


def client(variable: str) -> openai.OpenAI:
    # Strict: a reply that the client's types do not accept is an error.
    return openai.OpenAI(
        base_url=f"{os.environ[variable]}/v1", api_key="none", max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip


def test_models(quotes: openai.OpenAI) -> None:
    names = [model.id for model in quotes.models.list()]
    assert names[0] == "raglan"
    assert {"fast", "balanced", "thorough"} <= set(names)
    assert quotes.models.retrieve("raglan").object == "model"
    with pytest.raises(openai.NotFoundError) as refused:
        quotes.models.retrieve("gpt-9")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_an_answer_with_citations(quotes: openai.OpenAI) -> None:
    reply = quotes.chat.completions.create(model="raglan", messages=ASKED)
    ChatCompletion.model_validate_json(reply.model_dump_json(), strict=True)
    choice = reply.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert "cuda:1" in choice.message.content
    assert choice.message.annotations
    cited = choice.message.annotations[0].url_citation
    assert choice.message.content[cited.start_index : cited.end_index] == "[1]"
    assert (cited.title, cited.url) == ("Devices", "https://docs.example.org/devices")
    assert reply.usage
    assert reply.usage.total_tokens > 0
    raglan = reply.model_extra["raglan"]
    assert raglan["citations"][0]["document_id"] == "devices.md"
    assert raglan["passages"][0]["document_id"] == "devices.md"
    assert raglan["degraded"] == []
    assert raglan["trace_id"]
    assert raglan["timings_ms"]["total"] > 0


def test_a_document_without_a_link_is_cited_by_its_address(quotes: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "Who signs off a release?"}]
    reply = quotes.chat.completions.create(model="raglan", messages=asked)
    assert reply.choices[0].message.annotations
    url = reply.choices[0].message.annotations[0].url_citation.url
    assert url == f"{os.environ['QUOTES_URL']}/v1/collections/default/documents/releases.md"


def test_a_profile_is_a_model(quotes: openai.OpenAI) -> None:
    reply = quotes.chat.completions.create(model="fast", messages=ASKED)
    assert reply.model == "fast"
    assert "rerank" not in reply.model_extra["raglan"]["timings_ms"]
    assert "cuda:1" in (reply.choices[0].message.content or "")


def test_a_stream(quotes: openai.OpenAI) -> None:
    stream = quotes.chat.completions.create(
        model="raglan", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk.model_dump_json(), strict=True)
    *body, last = chunks
    assert last.choices == []
    assert last.usage
    assert last.usage.total_tokens > 0
    assert body[0].choices[0].delta.role == "assistant"
    assert body[-1].choices[0].finish_reason == "stop"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in body)
    assert "cuda:1" in text
    cited = [a for c in body for a in (c.choices[0].delta.model_extra or {}).get("annotations", [])]
    place = cited[0]["url_citation"]
    assert text[place["start_index"] : place["end_index"]] == "[1]"
    sources = body[1].model_extra["raglan"]["passages"]
    assert sources[0]["document_id"] == "devices.md"
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_is_sent_only_where_it_is_asked_for(quotes: openai.OpenAI) -> None:
    chunks = list(quotes.chat.completions.create(model="raglan", messages=ASKED, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_clients_own_accumulation_of_a_stream(quotes: openai.OpenAI) -> None:
    with quotes.chat.completions.stream(model="raglan", messages=ASKED) as stream:
        stream.until_done()
        whole = stream.get_final_completion()
    assert "cuda:1" in (whole.choices[0].message.content or "")


def test_sampling_history_and_reasoning_reach_and_leave_the_model(asks: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What runs on a GPU?"},
        {"role": "assistant", "content": "The reranker."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    reply = asks.chat.completions.create(
        model="raglan", messages=messages, temperature=0.5, top_p=0.5, seed=7, stop="END",
        max_completion_tokens=200, n=1, user="me",
    )  # fmt: skip
    message = reply.choices[0].message
    assert message.content
    assert '"temperature": 0.5, "top_p": 0.5, "seed": 7, "stop": ["END"]' in message.content
    assert "in 4 messages" in message.content  # its own instructions, two turns, the question
    assert message.model_extra["reasoning_content"] == "The passage names the device."
    assert reply.usage
    assert reply.usage.completion_tokens == 12
    ignored = reply.model_extra["raglan"]["ignored"]
    assert len(ignored) == 1
    assert "system" in ignored[0]


def test_reasoning_in_a_stream(asks: openai.OpenAI) -> None:
    chunks = list(asks.chat.completions.create(model="raglan", messages=ASKED, stream=True))
    deltas = [chunk.choices[0].delta.model_extra or {} for chunk in chunks]
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert thought == "The passage names the device."


def test_an_answer_by_a_schema(asks: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"device": {"type": "string"}}}
    reply = asks.chat.completions.create(
        model="raglan",
        messages=ASKED,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "device", "schema": schema},
        },
    )
    assert reply.choices[0].message.content == '{"device": "cuda:1"}'


def test_other_collections_and_filters(quotes: openai.OpenAI) -> None:
    condition = {"eq": {"field": "team", "value": "release"}}
    reply = quotes.chat.completions.create(
        model="raglan", messages=ASKED, extra_body={"raglan": {"filter": condition, "top_k": 3}}
    )
    found = {passage["document_id"] for passage in reply.model_extra["raglan"]["passages"]}
    assert found == {"releases.md"}


def test_a_conversation_of_a_thousand_turns(asks: openai.OpenAI) -> None:
    turns: list[Any] = [
        {"role": role, "content": f"Turn {number}."}
        for number in range(500)
        for role in ("user", "assistant")
    ]
    reply = asks.chat.completions.create(model="raglan", messages=turns + ASKED)
    ignored = reply.model_extra["raglan"]["ignored"]
    assert ignored == ["Of 1000 earlier turns the newest 100 are read."]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "all system": ({"messages": [{"role": "system", "content": "a"}] * 2}, "messages[0]"),
    "blank": ({"messages": [{"role": "user", "content": " "}]}, "messages[0]"),
    "an answer last": (
        {"messages": [*ASKED, {"role": "assistant", "content": "So"}]}, "messages[1]"
    ),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
    "audio": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0]",
    ),
    "a tool's result": (
        {"messages": [{"role": "tool", "content": "a", "tool_call_id": "a"}, *ASKED]},
        "messages[0].role",
    ),
    "a tool's call": (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}, *ASKED]},
        "messages[0].tool_calls",
    ),
    "a tool that must be called": ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    "an unknown role": ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    "too many messages": ({"messages": ASKED * 2_001}, "messages"),
    "a null character": ({"messages": [{"role": "user", "content": "a\0"}]}, "messages"),
    "n": ({"n": 5}, "n"),
    "temperature": ({"temperature": 3}, "temperature"),
    "top_p": ({"top_p": 0}, "top_p"),
    "stop": ({"stop": ["a"] * 5}, "stop"),
    "tokens": ({"max_tokens": -1}, "max_completion_tokens"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "speech": ({"modalities": ["text", "audio"]}, "modalities"),
    "no schema": (
        {"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"
    ),
    "an unknown option": ({"raglan": {"depth": 1}}, "raglan"),
    "an option's limit": ({"raglan": {"top_k": 0}}, "raglan.top_k"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_the_name_of_its_part(quotes: openai.OpenAI, name: str) -> None:
    fields, param = BAD[name]
    with pytest.raises(openai.BadRequestError) as refused:
        quotes.chat.completions.create(
            model="raglan", messages=ASKED, extra_body={"stream": True, **fields}
        )
    error = refused.value.body
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param), error


def test_tools_may_be_offered_and_none_is_called(quotes: openai.OpenAI) -> None:
    tools: Any = [TOOL]
    reply = quotes.chat.completions.create(
        model="raglan", messages=ASKED, tools=tools, tool_choice="auto"
    )
    assert reply.choices[0].message.tool_calls is None
    assert reply.model_extra["raglan"]["ignored"] == ["tools has no effect."]


def test_other_errors_have_the_same_form(quotes: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        quotes.chat.completions.create(model="gpt-9", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as missing:
        quotes.chat.completions.create(
            model="raglan", messages=ASKED, extra_body={"raglan": {"collections": ["nowhere"]}}
        )
    assert missing.value.code == "not_found"
    assert "nowhere" in missing.value.message
    with pytest.raises(openai.APIStatusError) as method:
        quotes.get("/chat/completions", cast_to=object)
    assert method.value.status_code == 405
    assert "not allowed" in method.value.message
    with pytest.raises(openai.APIStatusError) as large:
        huge: list[Any] = [{"role": "user", "content": "a" * 2_000_000}]
        quotes.chat.completions.create(model="raglan", messages=huge)
    assert (large.value.status_code, large.value.code) == (413, "request_too_large")
