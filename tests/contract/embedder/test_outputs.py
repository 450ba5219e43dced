"""Dense, sparse and token vectors of a BGE-M3-shaped model, against its definition in torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import random_models
from raglan import tensors
from raglan.deadline import Deadline
from raglan.encoders import heads as model_heads
from raglan.encoders import model as models
from raglan.encoders import sessions
from raglan.encoders.heads import Heads
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Sessions, TokenIds
from raglan.encoders.tokenizer import Tokenizers
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc
from raglan_embedder import outputs
from raglan_embedder.app import build
from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors
from raglan_embedder.settings import EmbedderSettings

ALL = Outputs.DENSE | Outputs.SPARSE | Outputs.TOKEN_VECTORS
TEXTS = [
    "the plant turns light to sugar",
    "retry",
    "the retry budget and the retry budget and the retry of the budget",
    "日本語 <mask> what is this",
    "many words " * 60,
]


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> EncoderModel:
    return models.read(str(random_models.bge_m3(tmp_path_factory.mktemp("bge-m3"))))


@pytest.fixture(scope="module")
def heads(m3: EncoderModel, model_cache: Path) -> Heads:
    return model_heads.load(m3, model_cache)


@pytest.fixture(scope="module")
def ids(m3: EncoderModel) -> list[TokenIds]:
    return Tokenizers(m3.path, m3.max_tokens).ids(TEXTS)


@pytest.fixture(scope="module", params=["openvino", "onnx", "torch"])
def loaded(request: pytest.FixtureRequest, m3: EncoderModel, model_cache: Path) -> Sessions:
    return sessions.load(
        request.param, m3, device="cpu", precision="f32", streams=1, cache_dir=model_cache
    )


def encode(
    loaded: Sessions, heads: Heads, batch: Sequence[TokenIds], wanted: Outputs = ALL
) -> list[TextVectors]:
    return outputs.encode(
        loaded.streams[0], [EncodeItem(each, wanted) for each in batch], pooling="cls", heads=heads
    )


def by_definition(model: EncoderModel, ids: TokenIds) -> dict[str, Any]:
    """One text alone, each output as the paper and the model card define it."""
    import torch
    import transformers

    def linear(name: str) -> torch.nn.Linear:
        state = torch.load(model.path / f"{name}.pt", weights_only=True)
        layer = torch.nn.Linear(*reversed(state["weight"].shape))
        layer.load_state_dict(state)
        return layer

    encoder = transformers.AutoModel.from_pretrained(model.path).eval()
    with torch.inference_mode():
        states = encoder(torch.tensor([ids])).last_hidden_state[0]
        weights = torch.relu(linear("sparse_linear")(states)).squeeze(-1)
        tokens = linear("colbert_linear")(states[1:])
        unit = torch.nn.functional.normalize
        terms: dict[int, float] = {}
        for token, weight in zip(ids, weights.tolist(), strict=True):
            if token > 4 and weight > 0:  # 0..4 are the special ones
                terms[token] = max(terms.get(token, 0.0), weight)
        return {
            "dense": unit(states[:1])[0].numpy(),
            "terms": terms,
            "tokens": unit(tokens).numpy(),
        }


def test_all_outputs_agree_with_the_definition(
    loaded: Sessions, m3: EncoderModel, heads: Heads, ids: list[TokenIds]
) -> None:
    for text, found in zip(ids, encode(loaded, heads, ids), strict=True):
        expected = by_definition(m3, text)
        assert found.dense is not None
        assert found.sparse is not None
        assert found.token_vectors is not None
        assert found.dense == pytest.approx(expected["dense"], abs=2e-5)
        assert found.token_vectors == pytest.approx(expected["tokens"], abs=2e-5)
        terms = dict(zip(found.sparse.indices.tolist(), found.sparse.weights.tolist(), strict=True))
        assert terms == pytest.approx(expected["terms"], abs=2e-5)
        assert list(found.sparse.indices) == sorted(expected["terms"])


def test_some_terms_weigh_something_and_special_tokens_nothing(
    loaded: Sessions, heads: Heads, ids: list[TokenIds]
) -> None:
    vectors = [each.sparse for each in encode(loaded, heads, ids) if each.sparse is not None]
    assert sum(len(each.indices) for each in vectors) > 10
    assert all(index > 4 for each in vectors for index in each.indices)
    assert all((each.weights > 0).all() for each in vectors)


def test_each_text_of_a_batch_gets_what_it_wants_and_no_more(
    loaded: Sessions, heads: Heads, ids: list[TokenIds]
) -> None:
    batch = [
        EncodeItem(ids[0]),
        EncodeItem(ids[1], Outputs.SPARSE),
        EncodeItem(ids[2], Outputs.TOKEN_VECTORS),
    ]
    first, second, third = outputs.encode(loaded.streams[0], batch, pooling="cls", heads=heads)
    assert first.dense is not None
    assert (first.sparse, first.token_vectors) == (None, None)
    assert (second.dense, second.token_vectors) == (None, None)
    assert third.token_vectors is not None
    assert third.token_vectors.shape == (len(ids[2]) - 1, 32)


def test_what_was_returned_outlives_the_next_batch(
    loaded: Sessions, heads: Heads, ids: list[TokenIds]
) -> None:
    (before,) = encode(loaded, heads, ids[:1])
    assert before.dense is not None
    assert before.token_vectors is not None
    dense, tokens = before.dense.copy(), before.token_vectors.copy()
    encode(loaded, heads, ids[2:3])
    assert np.array_equal(before.dense, dense)
    assert np.array_equal(before.token_vectors, tokens)


def test_a_plain_model_gives_its_last_states_as_token_vectors(
    minilm: EncoderModel, model_cache: Path
) -> None:
    plain = model_heads.load(minilm, model_cache)
    assert plain == Heads()
    loaded = sessions.load(
        "onnx", minilm, device="cpu", precision="f32", streams=1, cache_dir=model_cache
    )
    (text,) = Tokenizers(minilm.path, minilm.max_tokens).ids(["hello world"])
    states = loaded.streams[0](*sessions.pad([text]))[0, : len(text)]
    wanted = EncodeItem(text, Outputs.DENSE | Outputs.TOKEN_VECTORS)
    (found,) = outputs.encode(loaded.streams[0], [wanted], pooling="mean", heads=plain)
    assert found.token_vectors is not None
    assert found.token_vectors == pytest.approx(
        states / np.linalg.norm(states, axis=1, keepdims=True), abs=1e-6
    )
    assert found.dense is not None
    assert np.linalg.norm(found.dense) == pytest.approx(1, abs=1e-6)


def test_what_a_model_does_not_give_is_refused_with_what_it_gives(heads: Heads) -> None:
    outputs.refuse(ALL, outputs.outputs_of(heads), "m3")
    with pytest.raises(InvalidInput, match="sparse asked for, but minilm .* token_vectors"):
        outputs.refuse(ALL, outputs.outputs_of(Heads()), "minilm")
    with pytest.raises(InvalidInput, match="sparse and token_vectors asked for"):
        outputs.refuse(ALL, Outputs.DENSE, "remote")


def test_outputs_are_named_as_on_the_wire(heads: Heads) -> None:
    assert outputs.outputs_of(heads).names() == ["dense", "sparse", "token_vectors"]


def test_token_vectors_that_no_message_holds_are_refused() -> None:
    outputs.check_size(Outputs.DENSE, [10**9], 1024, 1)
    outputs.check_size(ALL, [50, 50], 10, 2_880)
    with pytest.raises(PayloadTooLarge, match="100 tokens .* 2880 bytes; it may have 2879"):
        outputs.check_size(ALL, [50, 50], 10, 2_879)


def test_heads_are_converted_once(m3: EncoderModel, tmp_path: Path) -> None:
    model_heads.load(m3, tmp_path)
    (file,) = (tmp_path / "heads").glob("*.npz")
    made = file.stat().st_mtime_ns
    model_heads.load(m3, tmp_path)
    assert file.stat().st_mtime_ns == made


@pytest_asyncio.fixture
async def stub(
    m3: EncoderModel, model_cache: Path
) -> AsyncIterator[embedder_pb2_grpc.EmbedderServiceStub]:
    """A service over the random model; its replies may have 20,000 bytes."""
    chosen = EmbedderSettings(
        port=0,
        shutdown_drain_s=0,
        model=str(m3.path),
        cache_dir=model_cache,
        engine="onnx",
        streams=1,
        max_message_bytes=20_000,
    )
    server = Server(build(chosen), chosen)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield embedder_pb2_grpc.EmbedderServiceStub(channel)
    await server.stop()


async def call(stub: Any, **fields: Any) -> embedder_pb2.EmbedResponse:
    request = embedder_pb2.EmbedRequest(**fields)
    reply: embedder_pb2.EmbedResponse = await client.call(
        stub.Embed, request, deadline=Deadline.after(30)
    )
    return reply


async def test_all_outputs_come_over_the_wire_in_the_order_of_the_texts(
    stub: embedder_pb2_grpc.EmbedderServiceStub, m3: EncoderModel, ids: list[TokenIds]
) -> None:
    texts = [*TEXTS[:3], TEXTS[0]]
    reply = await call(stub, texts=texts, sparse=True, token_vectors=True)
    sparse = tensors.unpack_sparse(reply.sparse)
    tokens = tensors.unpack_tokens(reply.token_vectors)
    dense = tensors.unpack(reply.vectors)
    for at, text in enumerate([*ids[:3], ids[0]]):
        expected = await asyncio.to_thread(by_definition, m3, text)
        assert dense[at] == pytest.approx(expected["dense"], abs=2e-5)
        assert tokens[at] == pytest.approx(expected["tokens"], abs=1e-3)  # float16
        terms = dict(zip(sparse[at].indices.tolist(), sparse[at].weights.tolist(), strict=True))
        assert terms == pytest.approx(expected["terms"], abs=2e-5)


async def test_pooled_token_vectors_are_means_of_neighbours(
    stub: embedder_pb2_grpc.EmbedderServiceStub,
) -> None:
    whole, pooled = [
        tensors.unpack_tokens((await call(
            stub, texts=TEXTS[:3], token_vectors=True, token_pooling=pooling
        )).token_vectors)
        for pooling in (0, 3)
    ]  # fmt: skip
    for every, some in zip(whole, pooled, strict=True):
        means = [
            every[at : at + 3].astype(np.float32).mean(axis=0) for at in range(0, len(every), 3)
        ]
        expected = np.stack([mean / np.linalg.norm(mean) for mean in means])
        assert some.dtype == np.float16
        assert some == pytest.approx(expected, abs=2e-3)
    with pytest.raises(InvalidInput, match="token_pooling is 17; it must be 0 to 16"):
        await call(stub, texts=["a"], token_vectors=True, token_pooling=17)


async def test_what_was_not_asked_for_is_not_sent(
    stub: embedder_pb2_grpc.EmbedderServiceStub,
) -> None:
    reply = await call(stub, texts=["light"])
    assert not reply.HasField("sparse")
    assert not reply.HasField("token_vectors")
    info = await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(10))
    assert list(info.outputs) == ["dense", "sparse", "token_vectors"]


async def test_token_vectors_too_large_for_a_reply_are_never_computed(
    stub: embedder_pb2_grpc.EmbedderServiceStub,
) -> None:
    """Token vectors too large for a reply are refused before they are made."""
    with pytest.raises(PayloadTooLarge, match="RAGLAN_EMBEDDER_MAX_MESSAGE_BYTES"):
        await call(stub, texts=[TEXTS[4] + str(n) for n in range(6)], token_vectors=True)
    assert (await call(stub, texts=["and it serves on"])).vectors.rows == 1
