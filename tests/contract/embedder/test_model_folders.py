"""Folders of sentence-transformers in their less usual forms, served as that library reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_models
import sentence_transformers
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders import model as models
from raglan.errors import InvalidInput
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import embedder_pb2, embedder_pb2_grpc
from raglan_embedder.app import build
from raglan_embedder.settings import EmbedderSettings

TEXTS = ["the plant turns light to sugar", "water", "a retry budget bounds the load"]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.minilm(tmp_path_factory.mktemp("minilm"))


def modules(folder: Path) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads((folder / "modules.json").read_text())
    return listed


def write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")


async def served(
    folder: Path, cache: Path, *, dimension: int = 0, **changes: object
) -> embedder_pb2.EmbedResponse:
    """The vectors of `TEXTS` by an embedder that was just started."""
    chosen = {"model": str(folder), "port": 0, "cache_dir": cache, "shutdown_drain_s": 0}
    settings = EmbedderSettings(**(chosen | {"engine": "torch", "device": "cpu"} | changes))  # type: ignore[arg-type]
    server = Server(build(settings), settings)
    await server.start()
    try:
        async with client.connect(f"127.0.0.1:{server.port}") as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            request = embedder_pb2.EmbedRequest(texts=TEXTS, dimension=dimension)
            reply: embedder_pb2.EmbedResponse = await client.call(
                stub.Embed, request, deadline=Deadline.after(60)
            )
            return reply
    finally:
        await server.stop()


def vectors(reply: embedder_pb2.EmbedResponse) -> NDArray[np.float32]:
    return np.frombuffer(reply.vectors.data, "<f4").reshape(len(TEXTS), -1)


def expected(folder: Path) -> NDArray[np.float32]:
    reference = sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True
    )
    found: NDArray[np.float32] = reference.encode(
        TEXTS, normalize_embeddings=True, show_progress_bar=False
    )
    return found


@pytest.mark.parametrize("engine", ["onnx", "torch"])
async def test_a_transformer_in_a_folder_of_its_own(
    minilm: Path, tmp_path: Path, model_cache: Path, engine: str
) -> None:
    folder = shutil.copytree(minilm, tmp_path / "model")
    (folder / "0_Transformer").mkdir()
    for file in [each for each in folder.iterdir() if each.is_file()]:
        if file.name != "modules.json":
            file.rename(folder / "0_Transformer" / file.name)
    first, pooling, *rest = modules(folder)
    (folder / "1_Pooling").rename(folder / "9_Pooling")
    write(folder / "9_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": "cls"})
    listed = [first | {"path": "0_Transformer"}, pooling | {"path": "9_Pooling"}, *rest]
    write(folder / "modules.json", listed)
    reply = await served(folder, model_cache, engine=engine)
    assert vectors(reply) == pytest.approx(expected(folder), abs=1e-5)


async def test_the_dimension_is_that_of_the_last_module(
    minilm: Path, tmp_path: Path, model_cache: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    folder = shutil.copytree(minilm, tmp_path / "model")
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    write(folder / "modules.json", [*modules(folder)[:2], dense])
    activation = "torch.nn.modules.linear.Identity"
    sizes = {"in_features": 32, "out_features": 12, "bias": True}
    write(folder / "3_Dense" / "config.json", sizes | {"activation_function": activation})
    weights = {"linear.weight": torch.randn(12, 32), "linear.bias": torch.randn(12)}
    save_file(weights, folder / "3_Dense" / "model.safetensors")
    reply = await served(folder, model_cache)
    assert (reply.model.dimension, reply.vectors.dim) == (12, 12)
    assert vectors(reply) == pytest.approx(expected(folder), abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
async def test_a_bare_transformer_is_pooled_as_the_setting_says(
    minilm: Path, tmp_path: Path, model_cache: Path, pooling: str
) -> None:
    folder = shutil.copytree(minilm, tmp_path / "model")
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(InvalidInput, match="RAGLAN_EMBEDDER_POOLING"):
        await served(folder, model_cache)
    ours = vectors(await served(folder, model_cache, pooling=pooling))
    mean = expected(folder)
    assert np.allclose(ours, mean, atol=1e-5) == (pooling == "mean")


async def test_a_vector_is_cut_only_where_the_model_was_trained_for_it(
    minilm: Path, tmp_path: Path, model_cache: Path
) -> None:
    folder = shutil.copytree(minilm, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"matryoshka_dimensions": [8, 16]})
    assert (await served(folder, model_cache, dimension=8)).vectors.dim == 8
    with pytest.raises(InvalidInput, match="trained to be cut to 8, 16, 32"):
        await served(folder, model_cache, dimension=9)


async def test_a_changed_configuration_is_exported_anew(
    minilm: Path, tmp_path: Path, model_cache: Path
) -> None:
    folder = shutil.copytree(minilm, tmp_path / "model")
    before = await served(folder, model_cache, engine="onnx")
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"hidden_act": "relu"})
    after = await served(folder, model_cache, engine="onnx")
    assert after.model.revision != before.model.revision
    assert vectors(after) == pytest.approx(expected(folder), abs=1e-5)
    assert models.read(str(folder)).revision == after.model.revision
