"""The client has what the gateway's OpenAPI document has, and needs nothing of the mesh."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import gateway_serving
import pytest
import raglan.client
from pydantic import BaseModel
from raglan.client import (
    AsyncClient,
    Client,
    conversation_models,
    models,
    source_models,
    trace_models,
)
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

REPOSITORY = Path(__file__).parents[3]
SHARED = {
    name: model
    for module in (models, conversation_models, source_models, trace_models)
    for name, model in vars(module).items()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model.__module__ == module.__name__
    and name != "StreamRestart"  # of no data
}
REQUESTS = {
    "query": ("QueryRequest", {"stream"}),
    "stream": ("QueryRequest", {"stream"}),
    "search": ("SearchRequest", set()),
    "create_collection": ("NewCollection", set()),
}
"""Method -> (schema of its body, fields that it sets itself)."""


@pytest.fixture
async def document() -> dict[str, Any]:
    return await asyncio.to_thread(build(GatewaySettings(**gateway_serving.NOWHERE)).openapi)


def shape(schema: Any) -> Any:
    """A schema without its words and without bounds, which the gateway checks."""
    if isinstance(schema, list):
        return [shape(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {"$ref", "additionalProperties", "anyOf", "const", "enum", "items", "properties", "type"}
    found = {
        key: {name: shape(value) for name, value in value.items()}
        if key == "properties"
        else shape(value)
        for key, value in schema.items()
        if key in kept
    }
    if "$ref" in found:
        found["$ref"] = found["$ref"].rpartition("/")[2]
    return {k: v for k, v in found.items() if (k, v) != ("additionalProperties", True)}


async def test_models_have_the_fields_of_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert SHARED.keys() - schemas.keys() == set()
    ours = {name: model.model_json_schema(mode="serialization") for name, model in SHARED.items()}
    wrong = {
        name: (shape(ours[name]).get("properties"), shape(schemas[name]).get("properties"))
        for name in SHARED
        if shape(ours[name]).get("properties") != shape(schemas[name]).get("properties")
    }
    assert wrong == {}


async def test_methods_take_the_fields_of_their_bodies(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for method, (schema, own) in REQUESTS.items():
        taken = set(inspect.signature(getattr(Client, method)).parameters)
        fields = {f.replace("timeout_ms", "timeout_s") for f in schemas[schema]["properties"]}
        assert taken - {"self", "extra_body"} == fields - own, method


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name.replace("aclose", "close"): list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(AsyncClient) == methods(Client)


def test_it_needs_its_declared_packages_only() -> None:
    """It imports alone, without `raglan/__init__.py`, and loads nothing of the mesh."""
    project = tomllib.loads((REPOSITORY / "services/client/pyproject.toml").read_text())["project"]
    declared = {each.partition(">")[0].replace("-", "_") for each in project["dependencies"]}
    code = (
        "import sys, json; sys.path[:] = [p for p in sys.path if not p.endswith('/src')];"
        f"sys.path.insert(0, {str(REPOSITORY / 'services/client/src')!r});"
        "import raglan.client, raglan;"
        "print(json.dumps([raglan.__spec__.origin, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    origin, modules = json.loads(done.stdout)
    assert origin is None
    assert all(
        name == "raglan" or name.startswith("raglan.client")
        for name in modules
        if name.partition(".")[0].startswith("raglan")
    )
    assert declared <= {name.partition(".")[0] for name in modules}
    foreign = {"grpc", "numpy", "opentelemetry", "structlog", "google", "fastapi", "regex"}
    assert foreign.isdisjoint(name.partition(".")[0] for name in modules)


def test_the_reference_names_everything_public() -> None:
    page = (REPOSITORY / "docs/api/python.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", page))
    methods = {
        name
        for kind in (Client, AsyncClient)
        for name in dir(kind)
        if not name.startswith("_") and callable(getattr(kind, name))
    }
    assert {*raglan.client.__all__, *methods} - words == set()
