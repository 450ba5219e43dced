"""Boosts and diversity from a request to its passages."""

from __future__ import annotations

from typing import Any

import httpx
import mesh_process
import pytest

NOTICE = "The notice period for a contract is {} months to the end of a quarter."
OLD = " It was agreed for offices and shops that have been closed and sold since then."
"""Makes a version a little less like the question than the others."""


@pytest.fixture(scope="module")
def asked(mesh: mesh_process.Mesh) -> Any:
    documents = [
        {
            "id": f"v{year}",
            "text": NOTICE.format(year - 2019) + OLD * (year == 2020),
            "metadata": {"published": f"{year}-01-01", "status": status},
        }
        for year, status in ((2020, "approved"), (2023, "approved"), (2026, "draft"))
    ]
    other = {"id": "leave", "text": "A contract names the days of leave and the notice of it."}
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": "notices"}).raise_for_status()
        mesh_process.ingest(client, "notices", [*documents, other])

        def ask(**options: Any) -> httpx.Response:
            body = {"query": "How long is the notice period?", "collections": ["notices"]}
            return client.post("/v1/search", json=body | options)

        yield ask
        client.delete("/v1/collections/notices")


def found(reply: httpx.Response) -> list[str]:
    return [each["document_id"] for each in reply.raise_for_status().json()["passages"]]


@pytest.mark.parametrize("rerank", [True, False])
def test_the_newest_version_is_first_where_dates_count(asked: Any, rerank: bool) -> None:
    newer = {"field": "published", "half_life_days": 400, "weight": 1}
    assert found(asked(rerank=rerank, boosts=[newer]))[0] == "v2026"
    approved = [newer, {"field": "status", "value": "draft", "weight": -1}]
    assert found(asked(rerank=rerank, boosts=approved))[0] == "v2023"
    assert found(asked(rerank=rerank, boosts=[newer], top_k=1)) == ["v2026"]


def test_variety_brings_in_what_says_something_else(asked: Any) -> None:
    plain = found(asked(top_k=2))
    assert "leave" not in plain
    assert "leave" in found(asked(top_k=2, diversity=0.8))


def test_a_boost_of_no_kind_is_refused(asked: Any) -> None:
    reply = asked(boosts=[{"field": "published"}])
    assert reply.status_code == 422
    assert "either value or half_life_days" in reply.text
