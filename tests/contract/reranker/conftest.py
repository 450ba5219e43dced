"""The cache that keeps the export between runs, and a cross-encoder made on the spot."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from raglan.encoders import model as models
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import reranker_pb2_grpc
from raglan_reranker.app import build
from raglan_reranker.settings import RerankerSettings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
Serve = Callable[..., Awaitable[reranker_pb2_grpc.RerankerServiceStub]]


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random cross-encoder of two layers with the bundled model's vocabulary."""
    import torch
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cross-encoder")
    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    bundled = models.locate(models.DEFAULT_MODEL)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled, model_max_length=128)
    tokenizer.save_pretrained(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serve(model_cache: Path) -> AsyncIterator[Serve]:
    """Start a reranker with the settings given; returns a stub on it."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> reranker_pb2_grpc.RerankerServiceStub:
            settings = RerankerSettings(
                port=0, cache_dir=model_cache, shutdown_drain_s=0, streams=2, **changes
            )
            server = Server(build(settings), settings)
            stack.push_async_callback(server.stop)
            await server.start()
            channel = client.connect(f"127.0.0.1:{server.port}")
            await stack.enter_async_context(channel)
            return reranker_pb2_grpc.RerankerServiceStub(channel)

        yield start
