"""The `openai` client's responses with file search, whole and streamed."""

from __future__ import annotations

import os
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

QUESTION = "How do I run the reranker on the second GPU?"
TOOL: Any = {"type": "file_search", "vector_store_ids": ["default"]}


def client(variable: str = "QUOTES_URL") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{os.environ[variable]}/v1", api_key="none", max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip


def test_a_response_cites_files() -> None:
    reply = client().responses.create(
        model="raglan", input=QUESTION, tools=[TOOL], include=["file_search_call.results"]
    )
    Response.model_validate_json(reply.model_dump_json())
    call, message = reply.output
    assert call.type == "file_search_call"
    assert call.queries == [QUESTION]
    assert call.results
    assert call.results[0].file_id == "devices.md"
    assert call.results[0].attributes == {
        "team": "search",
        "url": "https://docs.example.org/devices",
    }
    assert "cuda:1" in (call.results[0].text or "")
    assert 0 < (call.results[0].score or 0) <= 1
    assert message.type == "message"
    assert "cuda:1" in reply.output_text
    part = message.content[0]
    assert part.type == "output_text"
    cited = part.annotations[0]
    assert cited.type == "file_citation"
    assert (cited.file_id, cited.filename) == ("devices.md", "Devices")
    assert reply.output_text[cited.index :].startswith("[1]")
    assert reply.status == "completed"
    assert reply.usage
    assert reply.usage.total_tokens > 0


def test_a_filter_a_limit_and_no_results_unless_asked_for() -> None:
    tool = TOOL | {
        "filters": {"type": "eq", "key": "team", "value": "release"}, "max_num_results": 1
    }  # fmt: skip
    reply = client().responses.create(model="raglan", input=QUESTION, tools=[tool])
    assert reply.output[0].type == "file_search_call"
    assert reply.output[0].results is None
    found = reply.model_extra["raglan"]["passages"]
    assert [passage["document_id"] for passage in found] == ["releases.md"]


def test_every_filter_is_understood() -> None:
    compare = [
        {"type": kind, "key": "year", "value": 2020}
        for kind in ("eq", "ne", "gt", "gte", "lt", "lte")
    ] + [{"type": kind, "key": "team", "value": ["a", "search"]} for kind in ("in", "nin")]
    tool = TOOL | {
        "filters": {"type": "or", "filters": [*compare, {"type": "and", "filters": compare}]}
    }
    assert client().responses.create(model="raglan", input=QUESTION, tools=[tool]).output


@pytest.mark.parametrize("variable", ["QUOTES_URL", "ASKS_URL"])
def test_a_stream(variable: str) -> None:
    stream = client(variable).responses.create(
        model="raglan", input=QUESTION, tools=[TOOL], include=["file_search_call.results"],
        stream=True,
    )  # fmt: skip
    events = list(stream)
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in events:
        adapter.validate_json(event.model_dump_json(exclude_none=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "response.file_search_call.completed" in kinds
    assert "response.output_text.annotation.added" in kinds
    last: Any = events[-1]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.response.output_text != ""
    assert last.response.output[0].results[0].file_id == "devices.md"
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in done] == [item.id for item in last.response.output]
    assert ("response.reasoning_text.delta" in kinds) == (variable == "ASKS_URL")


def test_the_clients_own_accumulation_of_a_stream() -> None:
    with client().responses.stream(model="raglan", input=QUESTION, tools=[TOOL]) as stream:
        stream.until_done()
        whole = stream.get_final_response()
    assert "cuda:1" in whole.output_text


def test_a_conversation_with_the_output_of_an_earlier_response() -> None:
    asking = client("ASKS_URL")
    first = asking.responses.create(model="raglan", input="What runs on a GPU?")
    assert [item.type for item in first.output] == ["file_search_call", "reasoning", "message"]
    items: list[Any] = [
        {"role": "user", "content": "What runs on a GPU?"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    second = asking.responses.create(
        model="raglan", input=items, instructions="Be brief.", temperature=0.5
    )
    assert "in 4 messages" in second.output_text
    assert '"temperature": 0.5' in second.output_text
    assert "instructions" in second.model_extra["raglan"]["ignored"][0]


def test_an_answer_by_a_schema() -> None:
    form: Any = {"type": "json_schema", "name": "device", "schema": {"type": "object"}}
    reply = client("ASKS_URL").responses.create(
        model="raglan", input=QUESTION, text={"format": form}
    )
    assert reply.output_text == '{"device": "cuda:1"}'


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"input": ""}, "input[0]"),
    "no items": ({"input": []}, "input"),
    "an image": ({"input": [IMAGE]}, "input[0].content[0]"),
    "a call's output": (
        {"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input[0]"
    ),
    "another tool": ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    "two tools": ({"tools": [TOOL, TOOL]}, "tools[1]"),
    "no store": ({"tools": [{"type": "file_search"}]}, "tools[0].vector_store_ids"),
    "a bad store": (
        {"tools": [{"type": "file_search", "vector_store_ids": ["../a"]}]},
        "tools[0].vector_store_ids",
    ),
    "a bad filter": ({"tools": [TOOL | {"filters": {"type": "like"}}]}, "tools[0].filters"),
    "a filter without a key": ({"tools": [TOOL | {"filters": {"type": "eq"}}]}, "tools[0].filters"),
    "a previous response": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "background": ({"background": True}, "background"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    fields, param = BAD[name]
    with pytest.raises(openai.BadRequestError) as refused:
        client().responses.create(model="raglan", **{"input": QUESTION} | fields)
    assert refused.value.param == param, refused.value.message


def test_errors() -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        tool = TOOL | {"vector_store_ids": ["nowhere"]}
        client().responses.create(model="raglan", input=QUESTION, tools=[tool], stream=True)
    assert missing.value.code == "not_found"
    with pytest.raises(openai.NotFoundError):
        client().responses.retrieve("resp_1")
