"""Cross-encoders by every runtime, against sentence-transformers in fp32."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import random_models
from numpy.typing import NDArray
from raglan.encoders import cross_encoder
from raglan.encoders import model as models
from raglan.encoders.cross_encoder import CrossEncoder
from raglan.encoders.device import SessionEngine
from raglan.encoders.model import EncoderModel
from raglan.encoders.tokenizer import PairTokenizers
from raglan.errors import InvalidInput, Unavailable

QUERY = "how does a plant turn light to sugar"
PASSAGES = [
    "the plant turns light to sugar",
    "a retry budget",
    "what",
    "many small words of the language " * 30,
    "日本語 and text",
]


@pytest.fixture(scope="module", params=[2, 1], ids=["segments", "one-segment"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EncoderModel:
    """With and without token types that tell the query from the passage."""
    folder = tmp_path_factory.mktemp("cross")
    return models.read(str(random_models.cross_encoder(folder, segments=request.param)))


@pytest.fixture(scope="module", params=["openvino", "onnx", "torch"])
def loaded(request: pytest.FixtureRequest, model: EncoderModel, model_cache: Path) -> CrossEncoder:
    return cross_encoder.load(
        request.param, model, device="cpu", precision="f32", streams=2, cache_dir=model_cache
    )


def scores(
    loaded: CrossEncoder, model: EncoderModel, passages: Sequence[str]
) -> NDArray[np.float64]:
    pairs = PairTokenizers(model.path, model.max_tokens).pairs(QUERY, passages)
    return loaded.streams[-1](pairs)


def test_scores_agree_with_sentence_transformers(loaded: CrossEncoder, model: EncoderModel) -> None:
    import sentence_transformers
    import torch

    reference = sentence_transformers.CrossEncoder(
        str(model.path), device="cpu", local_files_only=True
    )
    expected = reference.predict(
        [(QUERY, passage) for passage in PASSAGES],
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )
    found = scores(loaded, model, PASSAGES)
    assert found == pytest.approx(expected, abs=2e-5)
    assert np.ptp(found) > 0.05, "a model that says the same of everything shows nothing"


def test_a_score_does_not_depend_on_its_batch(loaded: CrossEncoder, model: EncoderModel) -> None:
    alone = np.concatenate([scores(loaded, model, [passage]) for passage in PASSAGES])
    together = scores(loaded, model, PASSAGES)
    assert together == pytest.approx(alone, abs=1e-5)


def test_token_types_are_honoured(loaded: CrossEncoder, model: EncoderModel) -> None:
    (pair,) = PairTokenizers(model.path, model.max_tokens).pairs(QUERY, PASSAGES[:1])
    assert 1 in pair.types
    with_types = loaded.streams[0]([pair])
    without = loaded.streams[0]([pair._replace(types=[0] * len(pair.ids))])
    segments = 'type_vocab_size": 2' in (model.path / "config.json").read_text()
    assert bool(np.abs(with_types - without).max() > 1e-4) == segments


@pytest.mark.parametrize("runtime", ["openvino", "onnx", "torch"])
def test_a_model_of_several_labels_is_refused(
    tmp_path: Path, model_cache: Path, runtime: SessionEngine
) -> None:
    model = models.read(str(random_models.cross_encoder(tmp_path, labels=3)))
    with pytest.raises(InvalidInput, match="gives 3 scores a pair; a reranker needs one"):
        cross_encoder.load(
            runtime, model, device="cpu", precision="auto", streams=1, cache_dir=model_cache
        )


def test_a_gpu_that_the_runtime_does_not_serve_is_refused(
    model: EncoderModel, model_cache: Path
) -> None:
    def load(runtime: SessionEngine, device: str) -> None:
        cross_encoder.load(
            runtime, model, device=device, precision="auto", streams=1, cache_dir=model_cache
        )

    with pytest.raises(InvalidInput, match="openvino engine runs on the CPU"):
        load("openvino", "cuda:0")
    with pytest.raises(Unavailable, match="device is 'cuda:99'"):
        load("torch", "cuda:99")


def test_serving_a_cross_encoder_on_a_cpu_needs_no_torch(
    model: EncoderModel, model_cache: Path
) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from raglan_reranker.app import build
from raglan_reranker.settings import RerankerSettings

service = build(RerankerSettings(
    engine="cross-encoder", model={str(model.path)!r}, cache_dir=Path({str(model_cache)!r})
))

async def start_and_close():
    await service.start()
    await service.close()

asyncio.run(start_and_close())
loaded = {{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)
sys.exit(f"imported {{loaded}}" if loaded else 0)
"""
    cross_encoder.cross_onnx_file(model, model_cache)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
