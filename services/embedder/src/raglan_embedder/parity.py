"""Agreement of two engines or precisions of one model: `python -m raglan_embedder.parity`.

Vectors side by side on real texts, search quality with each, and whether a text's vector stays the
same to the byte whatever else is in its batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from raglan.encoders import model as models
from raglan.encoders.device import Precision, SessionEngine
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import TokenIds
from raglan.encoders.tokenizer import Tokenizers
from raglan.errors import InvalidInput, RaglanError
from raglan.settings import default_data_dir

from raglan_embedder import engines
from raglan_embedder.engines import EmbedBatch, Engine
from raglan_embedder.outputs import EncodeItem

Matrix = NDArray[np.float32]

TEXTS: Final = 500
BATCHES: Final = 30
"""Batches that the same text is put into."""

ROOT: Final = Path(__file__).resolve().parents[4]
"""Of the repository."""

_BATCH: Final = 8
_WATCHED: Final = 3
"""Texts whose vectors are watched: the shortest, the middle and the longest of ten."""

_DEPTH: Final = 10


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    engine: SessionEngine
    precision: Precision = "auto"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one side alone."""

    engine: str
    dtype: str
    device: str

    drift: float
    """Most that a component of a vector changed with its batch-mates; 0 means the same bytes."""

    recall_at_10: float | None = None
    ndcg_at_10: float | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """Two sides, and how far they agree."""

    model: str
    texts: int
    source: str
    """Source of the texts."""

    cosine_min: float
    cosine_mean: float
    a: Figures
    b: Figures


@dataclass(frozen=True, slots=True)
class Searches:
    """A BEIR set to search in, exhaustively."""

    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, int]]
    """For each query, the grade of each relevant document by its place in `documents`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that one side was run on."""

    figures: Figures
    vectors: Matrix
    """Of the real texts, (texts, dimension)."""


def compare(
    model: EncoderModel,
    a: Side,
    b: Side,
    *,
    texts: Sequence[str],
    source: str,
    searches: Searches | None,
    cache_dir: Path,
) -> Parity:
    """Load both sides in turn and measure them.

    Raises:
        InvalidInput: an engine cannot run the model, precision or device.
        Unavailable: a device or a file cannot be had.
    """
    of_a, of_b = (
        measure(model, side, texts=texts, searches=searches, cache_dir=cache_dir) for side in (a, b)
    )
    cosine = cosines(of_a.vectors, of_b.vectors)
    return Parity(
        model=model.id,
        texts=len(texts),
        source=source,
        cosine_min=float(cosine.min()),
        cosine_mean=float(cosine.mean()),
        a=of_a.figures,
        b=of_b.figures,
    )


def measure(
    model: EncoderModel,
    side: Side,
    *,
    texts: Sequence[str],
    searches: Searches | None,
    cache_dir: Path,
) -> Measured:
    """Run one side on everything. Takes minutes with `searches`."""
    engine = engines.load(
        side.engine,
        model,
        device=side.device,
        precision=side.precision,
        streams=0,
        cache_dir=cache_dir,
    )
    try:
        tokenizers = Tokenizers(model.path, model.max_tokens)

        def embed(prompt: str, some: Sequence[str]) -> Matrix:
            return _embed(engine, tokenizers.ids([prompt + text for text in some]))

        recall, ndcg = None, None
        if searches is not None:
            documents = embed(model.passage_prompt, searches.documents)
            queries = embed(model.query_prompt, searches.queries)
            recall, ndcg = quality(queries @ documents.T, searches.relevant)
        figures = Figures(
            engine=engine.name,
            dtype=engine.dtype,
            device=engine.device,
            drift=drift(engine.streams[0], tokenizers.ids(texts)),
            recall_at_10=recall,
            ndcg_at_10=ndcg,
        )
        return Measured(figures, embed(model.passage_prompt, texts))
    finally:
        engine.close()


def cosines(a: Matrix, b: Matrix) -> NDArray[np.float64]:
    """Row by row, of unit vectors: (texts,)."""
    product: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=1)
    return product


def drift(run: EmbedBatch, ids: Sequence[TokenIds]) -> float:
    """Most that a component of a text's vector differs between `BATCHES` batches of other texts."""
    chosen = random.Random(0)  # noqa: S311 - not a secret
    some = sorted(chosen.sample(range(len(ids)), min(10, len(ids))), key=lambda i: len(ids[i]))
    worst = 0.0
    for watched in (some[0], some[len(some) // 2], some[-1])[:_WATCHED]:
        first: Matrix | None = None
        for _ in range(BATCHES):
            mates = [ids[chosen.randrange(len(ids))] for _ in range(chosen.randrange(_BATCH))]
            place = chosen.randrange(len(mates) + 1)
            batch = [*mates[:place], ids[watched], *mates[place:]]
            vector = _run(run, batch)[place]
            first = vector if first is None else first
            worst = max(worst, float(np.abs(vector - first).max()))
    return worst


def quality(scores: Matrix, relevant: Sequence[dict[int, int]]) -> tuple[float, float]:
    """(recall@10, nDCG@10), means over queries; gain is the grade, discount log2(rank + 1).

    Args:
        scores: (queries, documents), higher is better.
        relevant: for each query, grade by document index.
    """
    recalls, gains = [], []
    for row, grades in zip(scores, relevant, strict=True):
        # Stable: of equal scores the first document comes first, on every machine.
        found = [grades.get(int(i), 0) for i in np.argsort(-row, kind="stable")[:_DEPTH]]
        best = sorted(grades.values(), reverse=True)[:_DEPTH]
        recalls.append(sum(grade > 0 for grade in found) / len(grades))
        gains.append(_gain(found) / _gain(best))
    return float(np.mean(recalls)), float(np.mean(gains))


def load_searches(folder: Path) -> Searches | None:
    """The BEIR set in `folder`; None when there is none."""
    if not (folder / "corpus.jsonl").is_file():
        return None
    documents = _rows(folder / "corpus.jsonl")
    place = {document["_id"]: number for number, document in enumerate(documents)}
    judged: dict[str, dict[int, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            judged.setdefault(query, {})[place[document]] = int(grade)
    queries = [row for row in _rows(folder / "queries.jsonl") if row["_id"] in judged]
    return Searches(
        documents=[_text(document) for document in documents],
        queries=[query["text"] for query in queries],
        relevant=[judged[query["_id"]] for query in queries],
    )


def spread(texts: Sequence[str], count: int) -> list[str]:
    """`count` of `texts`, evenly spaced; all where there are no more."""
    if count >= len(texts):
        return list(texts)
    return [texts[number * len(texts) // count] for number in range(count)]


def documentation() -> list[str]:
    """Paragraphs of this project's own documentation, of 40 characters or more."""
    folders = ("*.md", "docs/**/*.md", "services/*/*.md")
    pages = sorted(page for folder in folders for page in ROOT.glob(folder))
    text = "\n\n".join(page.read_text("utf-8") for page in pages)
    return [paragraph for each in text.split("\n\n") if len(paragraph := each.strip()) >= 40]


def _embed(engine: Engine, ids: Sequence[TokenIds]) -> Matrix:
    """In the given order; run sorted by length, on all streams."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    vectors: dict[int, Matrix] = {}

    def work(number: int) -> None:
        for batch in batches[number :: len(engine.streams)]:
            made = _run(engine.streams[number], [ids[i] for i in batch])
            vectors.update(zip(batch, made, strict=True))

    with ThreadPoolExecutor(len(engine.streams)) as threads:
        list(threads.map(work, range(len(engine.streams))))
    return np.stack([vectors[i] for i in range(len(ids))])


def _run(run: EmbedBatch, batch: Sequence[TokenIds]) -> Matrix:
    made = run([EncodeItem(ids) for ids in batch])
    return np.stack([vectors.dense for vectors in made if vectors.dense is not None])


def _gain(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 2) for rank, grade in enumerate(grades)))


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def _text(document: dict[str, Any]) -> str:
    return f"{document.get('title') or ''} {document['text']}".strip()


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="raglan_embedder.parity", description="Compare two engines or precisions of a model."
    )
    for side, engine in (("a", "onnx"), ("b", "torch")):
        parser.add_argument(f"--{side}", choices=get_args(SessionEngine), default=engine)
        parser.add_argument(f"--{side}-precision", choices=get_args(Precision), default="auto")
        parser.add_argument(f"--{side}-device", default="auto")
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--data", type=Path, default=None, help="folder of BEIR sets")
    parser.add_argument("--cache-dir", type=Path, default=default_data_dir() / "models")
    parser.add_argument("--no-search", action="store_true", help="leave out recall and nDCG")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    if arguments.texts < 1:
        parser.error(f"--texts is {arguments.texts}; it must be at least 1")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Command line; the exit status is 0, 1 after a failure, 2 after a wrong argument."""
    arguments = _arguments(given)
    data = arguments.data or Path(
        os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data"
    )
    try:
        found = _run_comparison(arguments, data / "scifact")
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    except RaglanError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(found)) if arguments.json else table(found))
    return 0


def _run_comparison(arguments: argparse.Namespace, folder: Path) -> Parity:
    searches = load_searches(folder)
    if searches is None:
        print(
            f"No SciFact in {folder} (EVAL_DATA_DIR): the texts are this project's documentation, "
            "and search quality is not measured.",
            file=sys.stderr,
        )
    source = "SciFact" if searches else "documentation"
    texts = spread(searches.documents if searches else documentation(), arguments.texts)
    a, b = (
        Side(
            getattr(arguments, side),
            getattr(arguments, f"{side}_precision"),
            getattr(arguments, f"{side}_device"),
        )
        for side in ("a", "b")
    )
    return compare(
        models.read(arguments.model).require_pooling(""),
        a,
        b,
        texts=texts,
        source=source,
        searches=None if arguments.no_search else searches,
        cache_dir=arguments.cache_dir,
    )


def table(found: Parity) -> str:
    """For a reader."""

    def line(name: str, *values: object) -> str:
        return f"{name:28}" + "".join(f"{value!s:>22}" for value in values)

    def figure(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.4f}"

    def same(side: Figures) -> str:
        return "yes" if side.drift == 0 else f"no, up to {side.drift:.1e}"

    a, b = found.a, found.b
    return "\n".join(
        [
            f"{found.model}, {found.texts} texts ({found.source})",
            line("", f"a: {a.engine} {a.dtype}", f"b: {b.engine} {b.dtype}"),
            line("device", a.device, b.device),
            line("recall@10 on SciFact", figure(a.recall_at_10), figure(b.recall_at_10)),
            line("nDCG@10 on SciFact", figure(a.ndcg_at_10), figure(b.ndcg_at_10)),
            line(f"same bytes in {BATCHES} batches", same(a), same(b)),
            f"cosine of a and b: min {found.cosine_min:.5f}, mean {found.cosine_mean:.5f}",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
