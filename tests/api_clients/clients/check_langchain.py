"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

from __future__ import annotations

import os

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = "How do I run the reranker on the second GPU?"


def chat(variable: str = "QUOTES_URL", **options: object) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{os.environ[variable]}/v1", api_key="none", model="raglan", max_retries=0,
        **options,
    )  # fmt: skip


def embeddings(**options: object) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        base_url=f"{os.environ['QUOTES_URL']}/v1", api_key="none", model="raglan", max_retries=0,
        **options,
    )  # fmt: skip


def test_an_answer() -> None:
    reply = chat().invoke(QUESTION)
    assert "cuda:1" in reply.text
    assert reply.usage_metadata
    assert reply.usage_metadata["total_tokens"] > 0


def test_a_stream() -> None:
    pieces = list(chat(stream_usage=True).stream(QUESTION))
    assert "cuda:1" in "".join(piece.text for piece in pieces)
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    assert whole.usage_metadata
    assert whole.usage_metadata["total_tokens"] > 0


def test_a_conversation_and_sampling() -> None:
    model = chat("ASKS_URL", temperature=0.5, seed=3, max_tokens=200)
    turns = [
        HumanMessage("What runs on a GPU?"),
        AIMessage("The reranker."),
        HumanMessage(QUESTION),
    ]
    reply = model.invoke(turns)
    assert '"temperature": 0.5' in reply.text
    assert "in 4 messages" in reply.text


def test_structured_output() -> None:
    schema = {
        "title": "Device", "type": "object", "properties": {"device": {"type": "string"}},
        "required": ["device"],
    }  # fmt: skip
    model = chat("ASKS_URL").with_structured_output(schema, method="json_schema")
    assert model.invoke(QUESTION) == {"device": "cuda:1"}


def test_responses_with_file_search() -> None:
    tool = {"type": "file_search", "vector_store_ids": ["default"]}
    reply = chat(use_responses_api=True).bind(tools=[tool]).invoke(QUESTION)
    cited = [
        note for block in reply.content if isinstance(block, dict)
        for note in block.get("annotations", [])
    ]  # fmt: skip
    assert "cuda:1" in reply.text
    assert cited[0]["file_id"] == "devices.md"


def test_tools_are_not_called_and_a_forced_call_is_refused() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert chat().bind_tools([tool]).invoke(QUESTION).tool_calls == []
    with pytest.raises(openai.BadRequestError, match="tool_choice is not supported"):
        chat().bind_tools([tool], tool_choice="any").invoke(QUESTION)


def test_vectors_of_text_and_the_refusal_of_token_ids() -> None:
    model = embeddings(check_embedding_ctx_length=False)
    first, second = model.embed_documents(["The reranker runs on a GPU.", "Bananas are yellow."])
    query = model.embed_query("Which device has the reranker?")
    assert dot(query, first) > dot(query, second)
    refused = openai.OpenAI(base_url=f"{os.environ['QUOTES_URL']}/v1", api_key="none")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        refused.embeddings.create(model="raglan", input=[[1, 2, 3]])


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
