"""What every embedding engine keeps to. Parity is with sentence-transformers in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pytest
import sentence_transformers
from numpy.typing import NDArray
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import TokenIds
from raglan.encoders.tokenizer import Tokenizers
from raglan_embedder.engines import EmbedBatch, Engine
from raglan_embedder.outputs import EncodeItem

SMALL = [
    "a",
    "the retry budget",
    "日本語のテキスト",
    "مرحبا بالعالم",
    "naïve café 🙂",
    "\0",
    "x " * 900,
]


@pytest.fixture(scope="session")
def tokenizers(minilm: EncoderModel) -> Tokenizers:
    return Tokenizers(minilm.path, minilm.max_tokens)


@pytest.fixture(scope="session")
def reference(minilm: EncoderModel) -> sentence_transformers.SentenceTransformer:
    return sentence_transformers.SentenceTransformer(
        str(minilm.path), device="cpu", local_files_only=True
    )


@pytest.fixture(scope="session")
def reference_vectors(
    reference: sentence_transformers.SentenceTransformer, real_texts: list[str]
) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = reference.encode(
        real_texts, batch_size=8, normalize_embeddings=True, show_progress_bar=False
    )
    return vectors


def run(stream: EmbedBatch, ids: Sequence[TokenIds]) -> NDArray[np.float32]:
    """One batch; (texts, dimension)."""
    return np.stack([vectors.dense for vectors in stream([EncodeItem(each) for each in ids])])


def embed(engine: Engine, tokenizers: Tokenizers, texts: list[str]) -> NDArray[np.float32]:
    """Sorted by length in batches of 4 on all streams, as the queue would; in the given order."""
    ids = tokenizers.ids(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.zeros((len(ids), 384), np.float32)

    def work(stream: int) -> None:
        starts = range(4 * stream, len(order), 4 * len(engine.streams))
        for batch in (order[start : start + 4] for start in starts):
            vectors[batch] = run(engine.streams[stream], [ids[i] for i in batch])

    with ThreadPoolExecutor(len(engine.streams)) as threads:
        list(threads.map(work, range(len(engine.streams))))
    return vectors


def test_rows_are_float32_of_length_one(engine: Engine, tokenizers: Tokenizers) -> None:
    vectors = run(engine.streams[0], tokenizers.ids(SMALL))
    assert vectors.shape == (len(SMALL), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(SMALL)), abs=1e-5)


LEAST_COSINE: Final = {"f32": 0.9999, "bf16": 0.999, "int8": 0.994}
LEAST_MEAN_COSINE: Final = {"f32": 0.9999, "bf16": 0.999, "int8": 0.997}
LEAST_ODD_COSINE: Final = {"f32": 0.999, "bf16": 0.999, "int8": 0.98}
"""To fp32. What was measured on 500 texts, and a little less."""


def test_vectors_agree_with_sentence_transformers(
    engine: Engine,
    tokenizers: Tokenizers,
    real_texts: list[str],
    reference_vectors: NDArray[np.float32],
) -> None:
    cosine = (embed(engine, tokenizers, real_texts) * reference_vectors).sum(axis=1)
    assert cosine.min() >= LEAST_COSINE[engine.dtype], cosine.min()
    assert cosine.mean() >= LEAST_MEAN_COSINE[engine.dtype], cosine.mean()


def test_odd_texts_agree_with_sentence_transformers(
    engine: Engine,
    tokenizers: Tokenizers,
    reference: sentence_transformers.SentenceTransformer,
) -> None:
    expected = reference.encode(SMALL, normalize_embeddings=True, show_progress_bar=False)
    cosine = (run(engine.streams[0], tokenizers.ids(SMALL)) * expected).sum(axis=1)
    assert cosine.min() >= LEAST_ODD_COSINE[engine.dtype], dict(zip(SMALL, cosine, strict=True))


def test_a_long_text_is_cut_at_the_models_end(engine: Engine, tokenizers: Tokenizers) -> None:
    long, longer = tokenizers.ids(["word " * 254, "word " * 254 + "and what nobody will read"])
    assert len(long) == len(longer) == 256
    first, second = run(engine.streams[0], [long, longer])
    assert np.array_equal(first, second)


def test_streams_give_the_same_bytes(engine: Engine, tokenizers: Tokenizers) -> None:
    ids = tokenizers.ids(SMALL[:3])
    first, *others = (run(stream, ids) for stream in engine.streams + engine.bulk_streams)
    assert all(np.array_equal(first, other) for other in others)


TOLERANCE = {
    ("openvino", "int8"): 0.0,
    ("openvino", "bf16"): 0.0,
    ("onnx", "f32"): 0.0,
    ("onnx", "int8"): 0.0,
    ("openvino", "f32"): 1e-6,
    ("torch", "f32"): 1e-6,
}
"""How much a component may change with the other texts of the batch. Zero: the same bytes."""


def test_a_vector_does_not_depend_on_its_batch(
    engine: Engine, tokenizers: Tokenizers, real_texts: list[str]
) -> None:
    ids = tokenizers.ids([*SMALL[:5], *real_texts[:5]])
    alone = np.concatenate([run(engine.streams[0], [each]) for each in ids])
    together = run(engine.streams[0], ids)
    shuffled = run(engine.streams[-1], ids[::-1])[::-1]
    worst = max(np.abs(alone - together).max(), np.abs(alone - shuffled).max())
    assert worst <= TOLERANCE[engine.name, engine.dtype], worst


def test_no_length_of_text_gets_other_bytes_beside_a_longer_one(
    engine: Engine, tokenizers: Tokenizers
) -> None:
    tolerance = TOLERANCE[engine.name, engine.dtype]
    stream = engine.streams[0]
    words = ["retry", "budget", "bounds", "what", "the", "load", "grows", "by"]
    longer = tokenizers.ids(["word " * 90])[0]
    for length in range(3, 72, 1 if tolerance == 0 else 10):
        text = tokenizers.ids([" ".join(words[i % len(words)] for i in range(length - 2))])[0]
        alone, beside = run(stream, [text])[0], run(stream, [longer, text])[1]
        assert np.abs(alone - beside).max() <= tolerance, length
