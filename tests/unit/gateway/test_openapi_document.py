"""The OpenAPI document is valid, and says what the gateway does."""

from __future__ import annotations

import asyncio
from typing import Any

import gateway_serving
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from raglan_gateway.api import openapi
from raglan_gateway.api.openai.documented import TAG
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings


@pytest.fixture
async def document() -> dict[str, Any]:
    return await asyncio.to_thread(build(GatewaySettings(**gateway_serving.NOWHERE)).openapi)


async def test_the_document_is_valid_openapi_31(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    # Integers as keys are JSON's strings once they are sent.
    errors = OpenAPIV31SpecValidator(_as_sent(document)).iter_errors()
    assert await asyncio.to_thread(lambda: [str(each) for each in errors]) == []


async def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = {ref.rpartition("/")[2] for ref in _references(document)}
    assert named - set(schemas) == set()
    assert {"NewDocuments", "StreamDelta", "Problem", "Job", "QueryReply"} <= named


async def test_every_route_declares_the_errors_that_the_border_answers_with(
    document: dict[str, Any],
) -> None:
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            statuses = {str(status) for status in route["responses"]}
            missing = {"403", "405", "408", "413", "415", "429", "503"} - statuses
            assert not missing, f"{method} {path}"


async def test_errors_of_routes_cost_no_validators() -> None:
    """They took two thirds of the time of `build`, and more at the first request, on the loop."""
    validated = {
        (route.path, status)
        for each in build(GatewaySettings(**gateway_serving.NOWHERE)).router.routes
        for route in getattr(each, "effective_candidates", list)()
        for status in route.response_fields
        if status != 200
    }
    assert validated == {("/startupz", 503), ("/readyz", 503)}


async def test_streams_name_the_data_of_each_event(document: dict[str, Any]) -> None:
    streams = [
        content["text/event-stream"]["schema"]["x-event-data"]
        for methods in document["paths"].values()
        for route in methods.values()
        for response in route["responses"].values()
        if "text/event-stream" in (content := response.get("content", {}))
        and TAG not in route["tags"]
    ]
    assert {frozenset(events) for events in streams} == {
        frozenset(openapi.QUERY_EVENTS),
        frozenset(openapi.JOB_EVENTS),
    }


def _as_sent(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_sent(inner) for key, inner in value.items()}
    return [_as_sent(inner) for inner in value] if isinstance(value, list) else value


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()
