"""The `openai` client's embeddings, and the `cohere` client's rerank in both versions."""

from __future__ import annotations

import math
import os
from typing import Any

import cohere
import httpx
import openai
import pytest
from cohere.core import ApiError

URL = os.environ["QUOTES_URL"]
TEXTS = ["The reranker runs on a GPU.", "Bananas are yellow.", "A GPU runs the reranker."]
QUERY = "Which GPU runs the reranker?"


@pytest.fixture
def client() -> openai.OpenAI:
    # Not strict: the client validates vectors before it decodes their base64.
    return openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)


def test_vectors_are_the_same_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="raglan", input=TEXTS, encoding_format="float")
    packed = client.embeddings.create(model="raglan", input=TEXTS)  # the client's own default
    assert [each.embedding for each in packed.data] == [each.embedding for each in floats.data]
    assert [each.index for each in floats.data] == [0, 1, 2]
    first, other, alike = (each.embedding for each in floats.data)
    assert math.isclose(sum(x * x for x in first), 1, abs_tol=1e-4)
    assert dot(first, alike) > dot(first, other)
    assert floats.usage.prompt_tokens == floats.usage.total_tokens > 10


def test_more_texts_than_a_call_of_the_embedder_holds(client: openai.OpenAI) -> None:
    texts = [f"Text {number % 50}" for number in range(300)]
    vectors = client.embeddings.create(model="raglan", input=texts).data
    assert len(vectors) == 300
    assert vectors[3].embedding == vectors[253].embedding != vectors[4].embedding


def test_fewer_dimensions(client: openai.OpenAI) -> None:
    vector = client.embeddings.create(model="raglan", input="a", dimensions=64).data[0].embedding
    assert len(vector) == 64
    assert math.isclose(dot(vector, vector), 1, abs_tol=1e-4)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2, 3]}, "input[0]"),
        ({"input": [[1, 2], [3]]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", " "]}, "input[1]"),
        ({"input": ["a"] * 2_049}, "input"),
        ({"input": "a", "dimensions": 4_096}, "dimensions"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_bad_input(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/embeddings", body={"model": "raglan", **fields}, cast_to=object)
    assert refused.value.param == param, refused.value.message


def test_the_embedders_own_name_is_a_model_and_another_is_not(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="all-MiniLM-L6-v2", input="a").data
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert refused.value.code == "model_not_found"


def test_cohere_v2() -> None:
    client = cohere.ClientV2(api_key="none", base_url=URL)
    reply = client.rerank(model="raglan", query=QUERY, documents=TEXTS, top_n=2)
    assert [each.index for each in reply.results][1] in (0, 2)
    assert len(reply.results) == 2
    assert 1 not in [each.index for each in reply.results]
    best, second = (each.relevance_score for each in reply.results)
    assert 1 >= best >= second >= 0


def test_cohere_v1() -> None:
    client = cohere.Client(api_key="none", base_url=URL)
    documents = [{"text": text} for text in TEXTS]
    reply = client.rerank(model="raglan", query=QUERY, documents=documents, return_documents=True)
    assert {each.index for each in reply.results} == {0, 1, 2}
    for each in reply.results:
        assert each.document
        assert each.document.text == TEXTS[each.index]


def test_more_documents_than_a_call_of_the_reranker_scores() -> None:
    client = cohere.ClientV2(api_key="none", base_url=URL)
    texts = [f"Bananas of sort {number} are yellow." for number in range(150)]
    texts[117] = TEXTS[0]
    reply = client.rerank(model="raglan", query=QUERY, documents=texts)
    assert sorted(each.index for each in reply.results) == list(range(150))
    assert reply.results[0].index == 117


def test_jina() -> None:
    body = {"model": "raglan", "query": QUERY, "documents": TEXTS, "top_n": 1}
    reply = httpx.post(f"{URL}/v1/rerank", json=body).raise_for_status().json()
    best = reply["results"][0]
    assert best["document"]["text"] == TEXTS[best["index"]] != TEXTS[1]
    assert reply["model"] == "raglan"


@pytest.mark.parametrize(
    "fields",
    [{"documents": []}, {"documents": ["a"] * 1_001}, {"top_n": 0}, {"query": " "}, {"query": 5}],
)
def test_bad_input_of_rerank(fields: dict[str, Any]) -> None:
    client = cohere.ClientV2(api_key="none", base_url=URL)
    with pytest.raises(ApiError) as refused:
        client.rerank(**{"model": "raglan", "query": QUERY, "documents": TEXTS} | fields)
    assert refused.value.status_code == 400
    assert set(refused.value.body) == {"id", "message", "detail"}
