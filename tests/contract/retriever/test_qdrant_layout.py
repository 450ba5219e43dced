"""Settings of new collections of a Qdrant server, as they arrive there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError
from raglan_retriever.app import load_store
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.settings import RetrieverSettings

pytestmark = pytest.mark.loop_stall_s(2.0)  # the server computes in this process


Bodies = list[tuple[str, Any]]


@pytest.fixture
async def fill(qdrant_http, model, vectors, chunk) -> Callable[..., Awaitable[None]]:
    """Make a collection by some settings, fill it and search it."""

    async def fill(**settings: Any) -> None:
        store = load_store(RetrieverSettings(store="qdrant", qdrant_url=qdrant_http[0], **settings))
        index = Index(store, limits=Limits(), language="en")
        await index.create("c", model, 0, 0)
        await index.upsert("c", model, [chunk("d#0", "gates")], vectors(1))
        query = Query(("c",), "hybrid", 5, "gates", vectors(1)[0], model)
        assert (await index.search(query)).found
        await store.close()

    return fill


async def test_a_collection_is_spread_compressed_and_limited_as_set(fill, qdrant_bodies: Bodies):
    await fill(
        qdrant_shard_number=6, qdrant_replication_factor=2, qdrant_write_consistency_factor=2,
        qdrant_vectors_on_disk=True, qdrant_payload_on_disk=False, qdrant_quantization="binary",
        qdrant_strict_mode={"max_points_count": 1_000_000, "read_rate_limit": 6000},
    )  # fmt: skip
    bodies = dict(qdrant_bodies)
    made = bodies["PUT /collections/c"]
    assert (made["shard_number"], made["replication_factor"]) == (6, 2)
    assert made["write_consistency_factor"] == 2
    dense = made["vectors"]["dense"]
    assert dense["memory"] == "cold"
    assert dense["quantization_config"] == {"binary": {"memory": "pinned"}}
    assert made["payload"] == {"memory": "cached"}
    limits = {"enabled": True, "max_points_count": 1_000_000, "read_rate_limit": 6000}
    assert made["strict_mode_config"] == limits
    # Revisions are as safe as what they stand for, and a single shard.
    revisions = bodies["PUT /collections/raglan.revisions"]
    assert (revisions["shard_number"], revisions["replication_factor"]) == (1, 2)
    assert revisions["write_consistency_factor"] == 2
    searches = bodies["POST /collections/c/points/query/batch"]["searches"]
    assert [each.get("params", {}).get("quantization") for each in searches] == [
        {"rescore": True, "oversampling": 3.0},
        None,
    ]


async def test_what_is_not_set_is_left_to_the_server(fill, qdrant_bodies: Bodies):
    await fill()
    bodies = dict(qdrant_bodies)
    made = bodies["PUT /collections/c"]
    assert made.keys() == {"vectors", "sparse_vectors", "metadata"}
    assert made["vectors"]["dense"].keys() == {"size", "distance"}
    assert "params" not in bodies["POST /collections/c/points/query/batch"]["searches"][0]


async def test_chunks_of_a_document_lie_together(fill, qdrant_bodies: Bodies):
    await fill()
    indexes = [body for path, body in qdrant_bodies if path == "PUT /collections/c/index"]
    assert indexes == [
        {"field_name": "document_id", "field_schema": {"type": "keyword", "is_tenant": True}},
        {"field_name": "terms", "field_schema": "keyword"},
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"qdrant_replication_factor": 2, "qdrant_write_consistency_factor": 3},
            "qdrant_write_consistency_factor is 3, but there are 2 copies",
        ),
        ({"qdrant_shard_number": 0}, "greater than 0"),
        ({"qdrant_quantization": "product"}, "'none', 'scalar', 'binary' or 'turbo'"),
        ({"qdrant_strict_mode": {"max_query_limit": 10}}, "'max_points_count'"),
        ({"qdrant_strict_mode": {"max_points_count": 0}}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        RetrieverSettings(store="qdrant", **settings)


def test_limits_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAGLAN_RETRIEVER_QDRANT_STRICT_MODE", '{"write_rate_limit": 600}')
    assert RetrieverSettings().qdrant_strict_mode == {"write_rate_limit": 600}
