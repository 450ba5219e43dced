"""No body is dear to refuse: counted in errors built and functions called, not in seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from raglan_gateway.api import (
    conversation_schemas,
    document_schemas,
    filters,
    keys,
    mcp_tools,
    preference_schemas,
    schemas,
    strategy_schemas,
    urls,
)
from raglan_gateway.api.openai.chat import ChatRequest
from raglan_gateway.api.openai.lenient import QueryOptions
from raglan_gateway.api.openai.rerank import RerankRequest
from raglan_gateway.api.openai.responses import ResponseRequest
from raglan_gateway.api.openai.store_files import NewBatch
from raglan_gateway.api.openai.vector_stores import NewVectorStore, VectorSearch
from raglan_gateway.api.strict import Strict
from raglan_gateway.settings import GatewaySettings

LIMIT_BYTES = GatewaySettings().max_request_bytes
MODELS: tuple[type[BaseModel], ...] = (
    schemas.SearchRequest, schemas.QueryRequest, schemas.NewCollection, schemas.NewDocuments,
    schemas.CollectionChanges, document_schemas.DocumentDeletion,
    document_schemas.DocumentTagging, document_schemas.DocumentUpdate,
    document_schemas.FilterChange,
    conversation_schemas.NewSession, conversation_schemas.SessionTitle,
    conversation_schemas.Feedback, QueryOptions, keys.NewApiKey, keys.Rotation,
    preference_schemas.Boost, preference_schemas.WithPreferences, strategy_schemas.WithStrategy,
    strategy_schemas.WithSecondTry, urls.DocumentUrls,
    mcp_tools.AnswerInput, mcp_tools.SearchInput, mcp_tools.DocumentInput,
)  # fmt: skip
MOST_ERRORS = 8
MOST_CALLS = 60_000
"""10,000 values of a filter take 4 calls each; a call takes less than a microsecond."""

BAD = ("[]", "{}", "0", "null", '""', "[[]]", '{"a":1}', '"a\\u0000"')


def cost(validate: Callable[[Any], object], value: Any) -> tuple[int, int]:
    """Errors built, and functions of Python called, by `validate(value)`."""
    calls = errors = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        validate(value)
    except ValidationError as error:
        sys.setprofile(None)
        errors = error.error_count()
    finally:
        sys.setprofile(None)
    return errors, calls


def repeated(element: str, size: int) -> str:
    return ",".join([element] * (size // (len(element) + 1)))


def bombs(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """JSON texts that are wrong in as many places as fit, one for each place a schema has."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", ()):
        yield from bombs(option, definitions, depth)
    size = LIMIT_BYTES - 1_000
    if schema.get("type") == "array":
        for bad in BAD:
            yield f"[{repeated(bad, size)}]"
        most = min(schema.get("maxItems", 1_000), 1_000)
        for inner in bombs(schema["items"], definitions, depth + 1) if depth < 4 else ():
            yield f"[{inner}]"
            # As many as are allowed, each as bad as fits.
            full = [f"[{repeated(bad, size // most)}]" for bad in BAD * (most // len(BAD))]
            yield f"[{','.join(full)}]"
    if properties := schema.get("properties"):
        yield json.dumps({f"k{number}": 1 for number in range(size // 13)})
        for name, inner in properties.items():
            for bomb in bombs(inner, definitions, depth + 1) if depth < 4 else ():
                yield f'{{"{name}":{bomb}}}'


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_body_at_the_size_limit_costs_little_to_refuse(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    tried = 0
    for body in bombs(schema, schema.get("$defs", {})):
        errors, calls = cost(model.model_validate, json.loads(body))
        assert errors <= MOST_ERRORS, body[:200]
        assert calls <= MOST_CALLS, body[:200]
        tried += 1
    assert tried


def test_a_filter_of_many_full_lists_is_refused_before_it_is_read() -> None:
    for values in (["[]"] * 1_000, ['"a"'] * 1_000):
        one = f'{{"in":{{"field":"x","values":[{",".join(values)}]}}}}'
        body = f'{{"query":"a","filter":{{"and":[{",".join([one] * 90)}]}}}}'
        errors, calls = cost(schemas.QueryRequest.model_validate, json.loads(body))
        assert errors == 1
        assert calls <= MOST_CALLS


def test_a_wide_and_deep_filter_is_refused_at_once() -> None:
    body = '{"exists":{"field":"x"}}'
    for _ in range(filters.MAX_DEPTH):
        body = f'{{"and":[{",".join([body] * 4)}]}}'
    errors, calls = cost(
        schemas.SearchRequest.model_validate, json.loads(f'{{"query":"a","filter":{body}}}')
    )
    assert errors == 1
    assert calls <= MOST_CALLS


def test_the_longest_texts_cost_few_calls() -> None:
    for text in ("a" * LIMIT_BYTES, "\ud800" * (LIMIT_BYTES // 6), "\0" * (LIMIT_BYTES // 6)):
        _, calls = cost(schemas.QueryRequest.model_validate, {"query": text})
        assert calls <= MOST_CALLS


def test_every_request_model_is_among_those_that_are_tried() -> None:
    def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for child in model.__subclasses__():
            yield child
            yield from below(child)

    seen = {
        name
        for model in MODELS
        for name in (model.__name__, *model.model_json_schema().get("$defs", {}))
    }
    assert {model.__name__ for model in below(Strict) if model.model_fields} <= seen


@pytest.mark.parametrize("bad", ["0", "{}"])
@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ChatRequest, "messages"),
        (ChatRequest, "stop"),
        (ResponseRequest, "tools"),
        (RerankRequest, "documents"),
        (NewVectorStore, "file_ids"),
        (NewBatch, "files"),
        (VectorSearch, "query"),
    ],
)
def test_a_list_of_the_openai_api_is_refused_at_its_first_wrong_element(
    model: type[BaseModel], name: str, bad: str
) -> None:
    errors, _ = cost(model.model_validate, {name: json.loads(f"[{repeated(bad, LIMIT_BYTES)}]")})
    assert 0 < errors <= MOST_ERRORS
