"""Every engine and precision of the default model against sentence-transformers in fp32.

    python bench/parity.py [engine-precision ...]

Each is run once over SciFact's 5,183 abstracts and 300 queries; results in
`bench/results/parity.json`. Peer is the torch engine in f32: sentence-transformers' own modules.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from raglan.encoders import model as models
from raglan.settings import default_data_dir
from raglan_embedder import parity
from raglan_embedder.parity import Measured, Side
from report import Row, publish

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data")
CACHE = Path(os.environ.get("RAGLAN_EMBEDDER_CACHE_DIR") or default_data_dir() / "cache")

REFERENCE = Side("torch", "f32", "cpu")
SIDES = [
    Side("torch", "bf16", "cpu"),
    Side("onnx", "f32"),
    Side("onnx", "int8"),
    Side("openvino", "f32"),
    Side("openvino", "bf16"),
    Side("openvino", "int8"),
]
MOST_LOST = 0.005
"""Recall that the default precision may lose."""


def main() -> None:
    """Measure the sides that the command line names, or all."""
    searches = parity.load_searches(DATA / "scifact")
    if searches is None:
        raise SystemExit(f"No SciFact in {DATA}: set EVAL_DATA_DIR to a folder that holds it.")
    chosen = sys.argv[1:] or [name(side) for side in SIDES]
    model = models.read(models.DEFAULT_MODEL)
    texts = parity.spread(searches.documents, parity.TEXTS)

    def measure(side: Side) -> Measured:
        print(f"measuring {name(side)} ...", flush=True)
        return parity.measure(model, side, texts=texts, searches=searches, cache_dir=CACHE)

    reference = measure(REFERENCE)
    rows = rows_of("torch-f32", reference, reference)
    for side in SIDES:
        if name(side) in chosen:
            rows += rows_of(name(side), measure(side), reference)
    publish("parity", rows)


def name(side: Side) -> str:
    """As the command line has it."""
    return f"{side.engine}-{side.precision}"


def rows_of(what: str, side: Measured, reference: Measured) -> list[Row]:
    """The figures of one side beside the reference's."""
    cosine = parity.cosines(side.vectors, reference.vectors)
    recall, ndcg = side.figures.recall_at_10, side.figures.ndcg_at_10
    of, their = "sentence-transformers fp32", reference.figures
    assert None not in (recall, ndcg, their.recall_at_10, their.ndcg_at_10)
    least = f">= {their.recall_at_10 - MOST_LOST:.4f}"
    return [
        Row(f"{what}: cosine, min of {len(cosine)} texts", "", float(cosine.min())),
        Row(f"{what}: cosine, mean", "", float(cosine.mean())),
        Row(f"{what}: SciFact recall@10", "", recall, least, their.recall_at_10, of),
        Row(f"{what}: SciFact nDCG@10", "", ndcg, None, their.ndcg_at_10, of),
        Row(f"{what}: most a component changes in 30 batches", "", side.figures.drift),
    ]


if __name__ == "__main__":
    main()
