"""The retriever, put together."""

from __future__ import annotations

import math
import warnings
from typing import Final
from urllib.parse import urlsplit

import structlog
from raglan.rpc.dependency import Dependency
from raglan.rpc.server import Service
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import retriever_pb2_grpc

from raglan_retriever.index import Index
from raglan_retriever.metrics import RetrieverMetrics
from raglan_retriever.query import Fusion, Limits
from raglan_retriever.servicer import RetrieverServicer
from raglan_retriever.settings import RetrieverSettings
from raglan_retriever.stores.null import NullStore
from raglan_retriever.stores.plans import Planner
from raglan_retriever.stores.store import Store

log: Final = structlog.get_logger()


def build(settings: RetrieverSettings) -> Service:
    """Assemble the service. Nothing is opened before its `start`."""
    store = load_store(settings)
    metrics = Endpoint.of(settings)
    counted = RetrieverMetrics(metrics.registry)
    limits = Limits(
        settings.max_limit,
        settings.max_upsert_chunks,
        settings.min_candidates,
        settings.max_searched_collections,
    )
    index = Index(
        store,
        limits=limits,
        language=settings.language,
        expand_abbreviations=settings.abbreviations,
        timed=counted.leg,
        on_foreign=counted.foreign,
    )
    fusion = Fusion(settings.fusion, settings.dense_weight, settings.lexical_weight)
    behind = [Dependency("qdrant", store.open)] if settings.store == "qdrant" else []
    servicer = RetrieverServicer(
        index, fusion=fusion, metrics_port=lambda: metrics.port, dependencies=behind
    )

    async def start() -> None:
        await store.open()
        counted.watch(store)

    async def close() -> None:
        await counted.close()
        for each in behind:
            await each.close()
        await store.close()

    return Service(
        name="raglan.v1.RetrieverService",
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            servicer, server
        ),
        start=start,
        close=close,
        metrics=metrics,
    )


def load_store(settings: RetrieverSettings) -> Store:
    """Return the store that `settings.store` names, without importing the other one's library."""
    if settings.store == "null":
        return NullStore()
    if settings.store == "qdrant":
        return _qdrant_store(settings)
    from raglan_retriever.stores.edge import EdgeStore

    return EdgeStore(
        settings.data_dir,
        search_threads=settings.search_threads,
        max_waiting=settings.max_waiting,
        optimize_after_chunks=settings.optimize_after_chunks,
        planner=Planner(settings.index_recall, settings.index_memory_mb * 1_000_000),
        min_free_mb=settings.min_free_mb,
        max_collections=settings.max_collections,
        max_open=settings.max_open_collections,
        close_after_s=settings.close_unused_after_s,
    )


def _qdrant_store(settings: RetrieverSettings) -> Store:
    from qdrant_client import AsyncQdrantClient

    from raglan_retriever.stores.qdrant import QdrantStore
    from raglan_retriever.stores.qdrant_layout import Layout

    key = settings.qdrant_api_key
    with warnings.catch_warnings():
        # The client's own warning names a line of code; ours names the setting.
        warnings.simplefilter("ignore", UserWarning)
        client = AsyncQdrantClient(
            settings.qdrant_url,
            api_key=None if key is None else key.get_secret_value(),
            timeout=math.ceil(settings.qdrant_timeout_s),
            check_compatibility=False,
        )
    url = urlsplit(settings.qdrant_url)
    if url.hostname not in ("localhost", "127.0.0.1", "::1"):
        if key is None:
            log.warning(
                "Qdrant is used without a key: whoever reaches it can read and delete",
                setting="RAGLAN_RETRIEVER_QDRANT_API_KEY",
            )
        elif url.scheme == "http":
            log.info("the key of Qdrant is sent without TLS", setting="RAGLAN_RETRIEVER_QDRANT_URL")
    layout = Layout(
        shard_number=settings.qdrant_shard_number,
        replication_factor=settings.qdrant_replication_factor,
        write_consistency_factor=settings.qdrant_write_consistency_factor,
        vectors_on_disk=settings.qdrant_vectors_on_disk,
        payload_on_disk=settings.qdrant_payload_on_disk,
        quantization=settings.qdrant_quantization,
        strict_mode=settings.qdrant_strict_mode,
    )
    return QdrantStore(client, layout)
