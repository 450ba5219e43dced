"""Source of the weights of the extractive generator, and the worth of each part.

Units: a conditional logit over all units of a question's passages, that one of them holds an answer
string, fitted to SQuAD questions 1,001-2,000 and the answerable ones of docs_qa, each of which
counts twice, because SQuAD has no headings, lists, tables or code. Confidence: a logistic
regression that tells the same questions from every second one of SciFact's and Cranfield's, put to
the SQuAD documents. SQuAD questions 2,001-5,930 took no part in the fit: with them it was decided
which parts stay, so here each is left out in turn. The first 1,000 are for
`bench/generator_quality.py` alone.

    python bench/extraction_weights.py

The service's constants are these, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mesh_passages import Asked, load
from raglan_generator import extraction, support
from raglan_generator.cues import asks_for_list
from raglan_generator.extraction import chances_of, evidence_of, language_of
from raglan_generator.features import Features, candidates_of, features, shown
from raglan_generator.joining import stretches_of
from raglan_generator.support import Evidence
from report import Row, publish
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

FITTED = slice(1000, 2000)
CHECKED = slice(2000, None)
RIDGE = 0.5
"""On the weights themselves: features that vary little, such as the cosine, are held back."""
DOCS_WEIGHT = 2.0
"""Of a question of docs_qa in the fit of units."""
DOCS_SUBJECT_WEIGHT = 3.0
"""The same in the fit of the confidence."""
THRESHOLDS = (0.25, 0.3, 0.33, 0.36, 0.4, 0.45, 0.5)


def normal(text: str) -> str:
    """Case, white space and marks of emphasis and code do not count."""
    return " ".join(text.replace("`", "").replace("*", "").casefold().split())


@dataclass(frozen=True)
class Case:
    """One question's units."""

    features: np.ndarray
    """(units, features)."""
    texts: list[str]
    answers: list[str]
    holds: np.ndarray
    """Mask of the units that hold an answer string."""
    parts: dict[str, float]
    """Of the confidence."""
    weight: float = 1.0
    """In the fit."""

    @classmethod
    def of(cls, asked: Asked, weight: float = 1.0) -> Case:
        question, passages = asked.question, asked.passages
        language = language_of(question, passages)
        candidates = candidates_of(
            stretches_of(passages),
            passages,
            language=language,
            whole_lists=asks_for_list(question),
        )
        found = features(question, passages, candidates, language=language)
        answers = [normal(answer) for answer in asked.answers]
        texts = [normal(shown(each.unit)) for each in candidates]
        parts: dict[str, float] = {}
        if any(each.words or each.section for each in found):
            chances = chances_of(candidates, found)
            evidence = evidence_of(question, passages, candidates, found, chances, language)
            parts = evidence.parts()
        return cls(
            features=np.array(found).reshape(-1, len(Features._fields)),
            texts=texts,
            answers=answers,
            holds=np.array([any(answer in text for answer in answers) for text in texts]),
            parts=parts,
            weight=weight,
        )

    def hit(self, weights: np.ndarray, count: int) -> bool:
        """Return whether the best `count` units together hold an answer string."""
        best = np.argsort(-(self.features @ weights), kind="stable")[:count]
        text = " ".join(self.texts[i] for i in best)
        return any(answer in text for answer in self.answers)


def fitted(cases: Sequence[Case], used: Sequence[int]) -> np.ndarray:
    """Weights of all features, 0 for those not `used`."""
    cases = [case for case in cases if case.holds.any()]
    values = np.concatenate([case.features[:, used] for case in cases])
    holds = np.concatenate([case.holds for case in cases])
    begins = np.cumsum([0, *(len(case.holds) for case in cases)])[:-1]
    owner = np.repeat(np.arange(len(cases)), [len(case.holds) for case in cases])
    counts = np.array([case.weight for case in cases])

    def log_sums(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top = np.maximum.reduceat(scores, begins)
        raised = np.exp(scores - top[owner])
        sums = np.add.reduceat(raised, begins)
        return top + np.log(sums), raised / sums[owner]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = values @ weights
        everything, chances = log_sums(scores)
        right, right_chances = log_sums(np.where(holds, scores, -1e9))
        slope = values.T @ ((chances - right_chances) * counts[owner]) + RIDGE * weights
        total = counts @ (everything - right)
        return float(total + RIDGE * weights @ weights / 2), slope

    found = minimize(loss, np.zeros(len(used)), jac=True, method="L-BFGS-B").x
    weights = np.zeros(len(Features._fields))
    weights[used] = found
    return weights


def weights(
    cases: Sequence[Case], docs: Sequence[Case], service: Features, where: str
) -> Iterator[Row]:
    """Compare the fit with the weights of the service."""
    found = fitted([*cases[FITTED], *docs], list(range(len(Features._fields))))
    for name, weight, ours in zip(Features._fields, found, service, strict=True):
        yield Row(f"weight of {name}{where}", "", weight, None, ours, "the service's")


def ablation(cases: Sequence[Case], docs: Sequence[Case]) -> Iterator[Row]:
    """Count the questions outside the fit that are answered without each feature."""
    names = Features._fields
    used = list(range(len(names)))
    fit = [*cases[FITTED], *docs]
    whole = fitted(fit, used)
    for where, checked in (("", cases[CHECKED]), ("docs_qa: ", docs)):
        best = [_share(checked, whole, count) for count in (1, 4)]
        for left_out in used:
            found = fitted(fit, [each for each in used if each != left_out])
            for count, peer in zip((1, 4), best, strict=True):
                what = f"{where}answer string in {count} unit(s), without {names[left_out]}"
                yield Row(what, "share", _share(checked, found, count), None, peer, "with all")


def _share(cases: Sequence[Case], weights: np.ndarray, count: int) -> float:
    return float(np.mean([case.hit(weights, count) for case in cases]))


def subject(
    squad: Sequence[Case],
    other: Sequence[Case],
    docs: Sequence[Case],
    service: dict[str, float],
    offset: float,
) -> Iterator[Row]:
    """The same for the part of the confidence that tells the subject."""
    names = list(service)
    suffix = "" if "similarity" in service else ", words alone"
    model, whole = _told(squad, other, docs, names)
    for name, weight in zip(names, model.coef_[0], strict=True):
        yield Row(f"weight of {name}{suffix}", "", weight, None, service[name], "the service's")
    intercept = float(model.intercept_[0])
    yield Row(f"offset{suffix}", "", intercept, None, offset, "the service's")
    for left_out in names:
        _, without = _told(squad, other, docs, [name for name in names if name != left_out])
        what = f"AUC of the subject, without {left_out}{suffix}"
        yield Row(what, "", without, None, whole, "with all")


def _told(
    squad: Sequence[Case], other: Sequence[Case], docs: Sequence[Case], names: Sequence[str]
) -> tuple[LogisticRegression, float]:
    """The model, and its AUC on questions that it was not fitted to."""

    def parts(cases: Sequence[Case]) -> np.ndarray:
        return np.array([[case.parts.get(name, 0.0) for name in names] for case in cases])

    groups = [parts(squad[FITTED]), parts(docs), parts(other[::2])]
    sizes = [len(group) for group in groups]
    labels = np.repeat([1, 1, 0], sizes)
    counts = np.repeat([1.0, DOCS_SUBJECT_WEIGHT, 1.0], sizes)
    model = LogisticRegression(C=100, max_iter=2000)
    model.fit(np.concatenate(groups), labels, sample_weight=counts)
    held = [model.decision_function(parts(each)) for each in (squad[CHECKED], other[1::2])]
    labels = np.repeat([1, 0], [len(each) for each in held])
    return model, float(roc_auc_score(labels, np.concatenate(held)))


def thresholds(squad: Sequence[Case], other: Sequence[Case]) -> Iterator[Row]:
    """Show the effect of each confidence threshold on the questions that were fitted."""
    squad, other = squad[FITTED], other[::2]
    ours, theirs = (np.array([_confidence(case) for case in some]) for some in (squad, other))
    for least in THRESHOLDS:
        declined, wrongly = float((theirs < least).mean()), float((ours < least).mean())
        note = f"abstains wrongly on {wrongly:.3f}"
        what = f"abstains on another subject below {least:g}"
        yield Row(what, "share", declined, ">= 0.97", note=note)


def _confidence(case: Case) -> float:
    if not case.parts:
        return 0.0
    return Evidence(**{"similarity": None, **case.parts}).confidence()


def main() -> None:
    """Fit and publish."""
    asked, pages = load("squad"), [each for each in load("docs_qa") if each.answers]
    others = [*load("scifact"), *load("cranfield")]
    squad, other = ([Case.of(each) for each in some] for some in (asked, others))
    docs = [Case.of(each, DOCS_WEIGHT) for each in pages]
    rows = [*weights(squad, docs, extraction.WEIGHTS, ""), *ablation(squad, docs)]
    rows += subject(squad, other, docs, support.WEIGHTS, support.OFFSET)
    rows += thresholds(squad, other)
    unread = [Case.of(each.unread()) for each in asked[: FITTED.stop]]
    docs = [Case.of(each.unread(), DOCS_WEIGHT) for each in pages]
    rows += weights(unread, docs, extraction.WEIGHTS_UNREAD, ", no matches")
    squad, other = ([Case.of(each.unscored()) for each in some] for some in (asked, others))
    docs = [Case.of(each.unscored(), DOCS_WEIGHT) for each in pages]
    rows += weights(squad, docs, extraction.WEIGHTS_BY_WORDS, ", words alone")
    rows += subject(squad, other, docs, support.WEIGHTS_BY_WORDS, support.OFFSET_BY_WORDS)
    publish("extraction_weights", rows)


if __name__ == "__main__":
    main()
