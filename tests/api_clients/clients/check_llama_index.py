"""LlamaIndex's OpenAI-like classes."""

from __future__ import annotations

import os

from llama_index.core.base.llms.types import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

QUESTION = "How do I run the reranker on the second GPU?"


def model(variable: str = "QUOTES_URL") -> OpenAILike:
    return OpenAILike(
        model="raglan", api_base=f"{os.environ[variable]}/v1", api_key="none",
        is_chat_model=True, max_retries=0,
    )  # fmt: skip


def test_an_answer() -> None:
    reply = model().chat([ChatMessage(role="user", content=QUESTION)])
    assert "cuda:1" in (reply.message.content or "")
    assert reply.raw.raglan["citations"][0]["document_id"] == "devices.md"
    assert "cuda:1" in model().complete(QUESTION).text


def test_a_stream() -> None:
    pieces = list(model().stream_chat([ChatMessage(role="user", content=QUESTION)]))
    assert "cuda:1" in (pieces[-1].message.content or "")
    assert len(pieces) > 1


def test_a_conversation() -> None:
    turns = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="What runs on a GPU?"),
        ChatMessage(role="assistant", content="The reranker."),
        ChatMessage(role="user", content=QUESTION),
    ]
    assert "in 4 messages" in (model("ASKS_URL").chat(turns).message.content or "")


def test_vectors() -> None:
    embedder = OpenAILikeEmbedding(
        model_name="raglan", api_base=f"{os.environ['QUOTES_URL']}/v1", api_key="none"
    )
    texts = ["The reranker runs on a GPU.", "Bananas are yellow."]
    first, second = embedder.get_text_embedding_batch(texts)
    query = embedder.get_query_embedding("Which device has the reranker?")
    assert embedder.similarity(query, first) > embedder.similarity(query, second)
