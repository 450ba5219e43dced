"""The semantic cache: paraphrases that get a cached answer, and questions that get a wrong one.

Vectors are those of the bundled model. Of a set of questions each is asked once, in the order of
the set, as one collection at one revision: the worst case of a cache, because nothing is asked
again. A hit is false where the two questions share no answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from raglan_gateway.caches.guards import GUARDS, Features
from raglan_gateway.caches.similar import Asked, Scope, SimilarQuestions
from report import Row
from retrieved import Encoder
from texts import DATA

_PAIRS = Path(__file__).parent / "question_pairs.tsv"
_FIRST = 350
"""Pairs of which every second one was left out when the lists of words were made."""
_LISTED = 453
"""Pairs behind these were written after all lists."""
_THRESHOLDS = (0.8, 0.85, 0.9, 0.95)
_DEFAULT = 0.9
_SQUAD = "squad"
_TRANSLATED = ("xquad_ar", "xquad_ru", "xquad_th", "xquad_tr")


def semantic() -> list[Row]:
    """All rows."""
    encoder = Encoder()
    return [
        *_pairs(encoder),
        *_questions(encoder, _SQUAD),
        *(row for name in _TRANSLATED for row in _questions(encoder, name)),
        *_speed(),
    ]


def _vectors(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Rows as the embedder returns them, float32 and normalised."""
    found = [each.astype(np.float32).mean(axis=0) for each in encoder.token_vectors(texts)]
    vectors = np.stack(found)
    normalised: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


def _pairs(encoder: Encoder) -> list[Row]:
    """Rates on pairs of our own, by threshold and by guard."""
    pairs = [line.split("\t") for line in _PAIRS.read_text().splitlines()]
    ones, others = (_vectors(encoder, [pair[at] for pair in pairs]) for at in (1, 2))
    cosines = (ones * others).sum(axis=1)
    is_same = np.array([pair[0] == "same" for pair in pairs])
    passed = {
        name: np.array([_passes(name, pair[1], pair[2]) for pair in pairs]) for name in GUARDS
    }
    everything = np.ones(len(pairs), bool)
    rows = []

    def add(what: str, allowed: np.ndarray, threshold: float, target: str | None = None) -> None:
        hits = allowed & (cosines >= threshold)
        rows.append(Row(f"{what}: paraphrases", "share", float(hits[is_same].mean())))
        false = float(hits[~is_same].mean())
        rows.append(Row(f"{what}: other questions", "share", false, target))

    guarded = np.logical_and.reduce(list(passed.values()))
    for threshold in _THRESHOLDS:
        add(f"all guards, cosine {threshold}", guarded, threshold, "<= 0.005")
        add(f"no guard, cosine {threshold}", everything, threshold)
    for name in GUARDS:
        rest = [passed[each] for each in GUARDS if each != name]
        add(f"only {name}, cosine {_DEFAULT}", passed[name], _DEFAULT)
        add(f"all but {name}, cosine {_DEFAULT}", np.logical_and.reduce(rest), _DEFAULT)
    line = np.arange(len(pairs))
    held_out = (line % 2 == 1) & (line < _FIRST) | (line >= _LISTED)
    hits = guarded & (cosines >= _DEFAULT) & held_out
    note = f"{(is_same & held_out).sum()} paraphrases, {(~is_same & held_out).sum()} others"
    for kind, members in (("paraphrases", is_same), ("other questions", ~is_same)):
        share = float(hits[members & held_out].mean())
        rows.append(Row(f"pairs that no list was made on: {kind}", "share", share, note=note))
    return rows


def _passes(guard: str, one: str, other: str) -> bool:
    both = Features.of(one), Features.of(other)
    return both[0] is not None and both[1] is not None and GUARDS[guard](both[0], both[1])


def _questions(encoder: Encoder, name: str) -> list[Row]:
    """Hits and false hits of a set of questions that have answers."""
    asked = [json.loads(line) for line in (DATA / name / "queries.jsonl").open(encoding="utf-8")]
    texts = [each["text"] for each in asked]
    answers = [{_plain(answer) for answer in each["metadata"]["answers"]} for each in asked]
    vectors = _vectors(encoder, texts)
    unguarded = vectors @ vectors.T
    rows = []
    for threshold in _THRESHOLDS if name == _SQUAD else (_DEFAULT,):
        pairs = _guarded(texts, vectors, threshold)
        rows += _rated(f"{name}, all guards, cosine {threshold}", pairs, answers, "<= 0.001")
        near = np.tril(unguarded, -1)
        best = near.argmax(axis=1)
        pairs = [(at, int(to)) for at, to in enumerate(best) if near[at, to] >= threshold]
        rows += _rated(f"{name}, no guard, cosine {threshold}", pairs, answers, None)
    return rows


def _guarded(texts: list[str], vectors: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Each question that is answered by an earlier one, and that one, by the index itself."""
    pairs = []
    parts = [SimilarQuestions(threshold, 1 << 30, 3600.0)]
    scope, held = Scope(frozenset(), b""), 0
    for at, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        features = Features.of(text)
        if features is None:
            continue
        found = [match for part in parts for match in part.find(scope, features, vector)]
        if found:
            best = max(found, key=lambda match: match.similarity)
            pairs.append((at, int(best.asked.answer)))
            continue
        if held == 1_000:  # a full one would forget its oldest
            parts.append(SimilarQuestions(threshold, 1 << 30, 3600.0))
            held = 0
        parts[-1].add(scope, Asked(text, features, str(at).encode()), vector)
        held += 1
    return pairs


def _rated(
    what: str, pairs: list[tuple[int, int]], answers: list[set[str]], target: str | None
) -> list[Row]:
    asked = len(answers)
    false = [pair for pair in pairs if not _agree(answers[pair[0]], answers[pair[1]])]
    note = f"{len(pairs)} hits and {len(false)} false ones, of {asked} questions"
    return [
        Row(f"{what}: hits", "share", len(pairs) / asked),
        Row(f"{what}: false hits", "share", len(false) / asked, target, note=note),
    ]


def _agree(one: set[str], other: set[str]) -> bool:
    """Return whether an answer of one is one of the other, or a part of it."""
    return any(a in b or b in a for a in one for b in other)


def _plain(answer: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in answer.casefold()).split()
    return f" {' '.join(word for word in words if word not in ('the', 'a', 'an'))} "


def _speed() -> list[Row]:
    """Processor time of one lookup among as many questions as a scope holds."""
    similar, scope = SimilarQuestions(_DEFAULT, 1 << 26, 3600.0), Scope(frozenset(), b"")
    chance = np.random.default_rng(1)
    centre = chance.normal(size=384)
    # All are near the question, so that the guards have the most to compare.
    vectors = (centre + chance.normal(size=(1_024, 384)) * 0.2).astype(np.float32)
    for number, vector in enumerate(vectors):
        text = f"How often is pump number {number} maintained by the crew of hall {number}?"
        features = Features.of(text)
        if features is None:
            raise RuntimeError(f"not analysed: {text}")
        similar.add(scope, Asked(text, features, b""), vector)
    asked = [f"How often is valve {number} of the pump maintained?" for number in range(1_000)]
    analysed = _timed(lambda at: Features.of(asked[at]))
    features = Features.of(asked[0])
    if features is None:
        raise RuntimeError("not analysed")
    found = _timed(lambda at: similar.find(scope, features, vectors[at]))
    return [
        Row("analysing a question, p50", "us", analysed, "<= 500"),
        Row("a lookup among 1,024 questions, all near, p50", "us", found, "<= 1000"),
    ]


def _timed(work: Callable[[int], object]) -> float:
    taken = []
    for at in range(1_000):
        begun = time.thread_time_ns()
        work(at)
        taken.append((time.thread_time_ns() - begun) / 1e3)
    return float(np.median(taken))
