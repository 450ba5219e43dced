"""Share of the extractive generator's answers that hold the right words, by confidence.

Passages are those that a whole mesh gives its generator (bench/mesh_passages.py), so the figures
are those of the mesh; `make bench-mesh ONLY=answers` asks a running one. Questions: the first 1,000
of the SQuAD part; the same, each without the document that answers it, because this part of SQuAD
has no unanswerable questions of its own; and every second question of SciFact and Cranfield, which
are of another subject. None of them took part in the fit (bench/extraction_weights.py); nor did
questions 2,001-5,930, by which it was decided what takes part.

    python bench/generator_quality.py

The data folder is EVAL_DATA_DIR, or ../shared/data beside the repository.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from extraction_weights import normal
from mesh_passages import Asked, load
from raglan_generator.extraction import Extraction, extract
from raglan_generator.settings import GeneratorSettings
from report import Row, publish
from sklearn.metrics import roc_auc_score

QUESTIONS = 1000
THRESHOLD = GeneratorSettings.model_fields["min_confidence"].default
BINS = 10
COUNTS = (1, 2, 3, 4)
"""Quotes that are looked at; the last is the most that an answer has by default."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one question."""

    hits: tuple[bool, ...]
    """True if an answer string is in the best one, two, three, four quotes."""
    confidence: float
    seconds: float
    """Of this thread's CPU, because the machine may be shared."""

    @property
    def abstained(self) -> bool:
        """True if the service would give no answer."""
        return self.confidence < THRESHOLD


def outcome(asked: Asked) -> Outcome:
    """Extract, and compare."""
    begun = time.thread_time()
    found = extract(asked.question, asked.passages)
    seconds = time.thread_time() - begun
    return Outcome(tuple(_hits(asked, found)), found.confidence, seconds)


def _hits(asked: Asked, found: Extraction) -> Iterator[bool]:
    texts = [normal(quote.text) for quote in found.quotes]
    answers = [normal(answer) for answer in asked.answers]
    for count in COUNTS:
        text = " ".join(texts[:count])
        yield any(answer in text for answer in answers)


@dataclass(frozen=True)
class Outcomes:
    """Of the three kinds of question."""

    squad: list[Outcome]
    removed: list[Outcome]
    other: list[Outcome]

    @classmethod
    def of(
        cls, squad: Sequence[Asked], removed: Sequence[Asked], other: Sequence[Asked]
    ) -> Outcomes:
        return cls(*([outcome(asked) for asked in some] for some in (squad, removed, other)))


def share(what: str, held: Iterable[bool], target: str | None = None) -> Row:
    """Return the share of `held` that are so."""
    return Row(what, "share", float(np.mean(list(held))), target)


def answers(found: Outcomes) -> Iterator[Row]:
    """Rows of what users get."""
    for count in COUNTS:
        what = f"answer string in {count} quote(s), never abstaining"
        yield share(what, (each.hits[count - 1] for each in found.squad))
    yield from abstaining(found, "", targets=(">= 0.92", ">= 0.97", "<= 0.05"))
    what = "abstains where the document that answers was removed"
    yield share(what, (each.abstained for each in found.removed))
    what = "of these, answer string in the answer all the same"
    yield share(what, (each.hits[-1] for each in found.removed))


def abstaining(
    found: Outcomes, where: str, *, targets: Sequence[str | None] = (None, None, None)
) -> Iterator[Row]:
    """The three figures that the threshold trades."""
    given = (each.hits[-1] and not each.abstained for each in found.squad)
    yield share(f"{where}answer string in the answer, abstaining", given, targets[0])
    other = (each.abstained for each in found.other)
    yield share(f"{where}abstains on another subject", other, targets[1])
    wrongly = (each.abstained for each in found.squad)
    yield share(f"{where}abstains wrongly", wrongly, targets[2])


def separation(found: Outcomes) -> Iterator[Row]:
    """Areas under the curve of the confidence."""
    right = [each.confidence for each in found.squad if each.hits[-1]]
    wrong = [each.confidence for each in found.squad if not each.hits[-1]]
    answerable = [*right, *wrong]
    removed = [each.confidence for each in found.removed]
    other = [each.confidence for each in found.other]
    yield _auc("answerable against another subject", answerable, other)
    yield _auc("answerable against the document removed", answerable, removed)
    yield _auc("right answers against wrong ones, all answerable", right, wrong)


def _auc(what: str, high: Sequence[float], low: Sequence[float]) -> Row:
    labels = np.repeat([1, 0], [len(high), len(low)])
    area = roc_auc_score(labels, np.concatenate([high, low]))
    return Row(f"area under the curve of confidence: {what}", "", float(area))


def reliability(found: Outcomes) -> Iterator[Row]:
    """The confidence as the probability that the answer holds an answer string."""
    for where, outcomes in (
        ("answerable and other subjects", [*found.squad, *found.other]),
        ("answerable", found.squad),
        ("answerable and removed", [*found.squad, *found.removed]),
    ):
        confidence = np.array([each.confidence for each in outcomes])
        right = np.array([each.hits[-1] for each in outcomes])
        number = np.minimum((confidence * BINS).astype(int), BINS - 1)
        error = 0.0
        for bin_ in np.unique(number):
            held = number == bin_
            said, was = float(confidence[held].mean()), float(right[held].mean())
            error += abs(said - was) * held.mean()
            if outcomes is not found.squad:
                what = f"{where}: right at confidence {bin_ / BINS:.1f}-{(bin_ + 1) / BINS:.1f}"
                yield Row(what, "share", was, None, said, "confidence", f"{held.sum()} questions")
        yield Row(f"{where}: calibration error (ECE)", "", float(error))


def main() -> None:
    """Measure and publish."""
    every = load("squad")
    squad, later = every[:QUESTIONS], every[2 * QUESTIONS :]
    removed = load("squad-without-gold")[:QUESTIONS]
    other = [*load("scifact"), *load("cranfield")][1::2]
    ranks = [asked.gold_rank for asked in squad]
    rows = [
        share("document that answers in the top 3", (r is not None and r < 3 for r in ranks)),
        share("document that answers in the top 10", (r is not None for r in ranks)),
    ]
    found = Outcomes.of(squad, removed, other)
    rows += [*answers(found), *separation(found), *reliability(found)]
    rows += abstaining(Outcomes.of(later, [], other), "questions 2,001-5,930: ")
    for where, without in (
        ("without a reranker that looks at words: ", Asked.unread),
        ("words alone: ", Asked.unscored),
    ):
        some = ([without(asked) for asked in each] for each in (squad, removed, other))
        rows += abstaining(Outcomes.of(*some), where)
    times = [1e3 * each.seconds for each in found.squad]
    rows.append(Row("extraction, CPU time p50", "ms", float(np.median(times)), "<= 5"))
    rows.append(Row("extraction, CPU time p99", "ms", float(np.quantile(times, 0.99))))
    publish("generator_quality", rows)


if __name__ == "__main__":
    main()
