"""Loaded engines, real texts, and the cache that keeps the export between runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raglan.encoders import model as models
from raglan.encoders import sessions
from raglan.encoders.model import EncoderModel
from raglan_embedder import engines
from raglan_embedder.engines import Engine


def has_bf16() -> bool:
    """Whether OpenVINO offers it here."""
    return sessions._openvino_dtype("auto") == "bf16"


@pytest.fixture(scope="session")
def minilm() -> EncoderModel:
    return models.read(models.DEFAULT_MODEL)


@pytest.fixture(scope="session")
def real_texts(eval_data: Path) -> list[str]:
    """100 SciFact abstracts: ten whole, up to the 256 tokens where they are cut; of the others,
    the first 300 characters."""
    with (eval_data / "scifact" / "corpus.jsonl").open(encoding="utf-8") as lines:
        documents = [json.loads(next(lines)) for _ in range(100)]
    texts = [f"{document['title']} {document['text']}" for document in documents]
    return texts[:10] + [text[:300] for text in texts[10:]]


@pytest.fixture(
    scope="session",
    params=[
        "openvino-int8",
        *(["openvino-bf16"] if has_bf16() else []),
        "openvino-f32",
        "onnx",
        "onnx-int8",
        "torch",
    ],
)
def engine(request: pytest.FixtureRequest, minilm: EncoderModel, model_cache: Path) -> Engine:
    """Each engine in each precision that a CPU offers."""
    name, _, precision = request.param.partition("-")
    return engines.load(
        name,
        minilm,
        device="cpu",
        precision=precision or "auto",
        streams=2,
        cache_dir=model_cache,
    )
