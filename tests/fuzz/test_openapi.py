"""Schemathesis sends what the OpenAPI document allows and what it forbids: never a 5xx."""

from __future__ import annotations

from typing import Any

import mesh_process
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


@pytest.fixture(scope="session")
def api_schema(mesh: mesh_process.Mesh) -> Any:
    with mesh.client() as client:
        for name in ("default", "a", "0"):
            client.post("/v1/collections", json={"name": name})
            mesh_process.ingest(client, name, [{"id": "a", "text": "Something to find."}])
    return schemathesis.openapi.from_url(f"{mesh.url}/openapi.json", timeout=30)


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_a_server_error(case: Any) -> None:
    case.call_and_validate(
        timeout=60,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
