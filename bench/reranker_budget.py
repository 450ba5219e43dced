"""Worth of reranking for its processor time, by setting: `make bench-reranker`.

Hybrid retrieval and MaxSim are computed once (bench/retrieved.py), then every setting is replayed
by the reranker's own rules: quality over all questions, CPU time as measured when exactly those
candidates of a sample of questions go through the engine, nothing kept. Then what keeping token
vectors saves, on the RAGPulse trace, and how well the probabilities of relevance hold: fitted on
every second question, judged on the others.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from prometheus_client import CollectorRegistry
from raglan.cache import Cache
from raglan.deadline import Deadline
from raglan.encoders.metrics import EncoderMetrics
from raglan_cli import metrics
from raglan_reranker import app
from raglan_reranker.budget import affordable, blend, within_gap
from raglan_reranker.calibration import Calibration
from raglan_reranker.engines.late_interaction import Rounded, max_sim
from raglan_reranker.settings import RerankerSettings
from report import Row, publish
from retrieved import DATA, QUESTIONS, Case, load
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

SAMPLE = 20
"""Questions of each set whose candidates are scored under the clock."""

NAMES = {"scifact": "SciFact", "squad": "SQuAD", "cranfield": "Cranfield"}
ALL = 10**9
VECTOR_BYTES = 384 + 4
"""Of one kept token."""


@dataclass(frozen=True)
class Setting:
    """One way to spend; `tokens` 0 is retrieval alone."""

    tokens: int
    share: float = 0.5
    gap: float = math.inf

    def __str__(self) -> str:
        if not self.tokens:
            return "retrieval alone"
        tokens = "all tokens" if self.tokens == ALL else f"{self.tokens:,} tokens"
        gap = "no gap" if math.isinf(self.gap) else f"gap {self.gap:g}"
        return f"{tokens}, blend {self.share:g}, {gap}"


ALONE = Setting(0)
ALL_20 = Setting(ALL)
DEFAULT = Setting(1_200, gap=3.0)
BEST = Setting(2_000, gap=3.0)
CHEAP = Setting(2_000, gap=1.5)
BLENDS = [Setting(*each) for each in product((400, 800, 1_200, 2_000, ALL), (0.3, 0.5, 0.7))]
GAPS = [Setting(t, 0.5, gap) for t, gap in product((1_200, 2_000, ALL), (1.0, 1.5, 2.0, 2.5, 3.0))]


def scored(case: Case, setting: Setting) -> int:
    """Return the number of candidates that the reranker would score."""
    offered = within_gap(retrieval(case), setting.gap)
    return affordable(case.query_tokens, case.tokens, count=offered, tokens=setting.tokens)


def retrieval(case: Case) -> np.ndarray:
    """Retrieval's scores of what is offered."""
    return np.array(case.fused[: len(case.tokens)])


def quality(case: Case, setting: Setting, *, rounded: bool = True) -> tuple[float, float]:
    """nDCG@10 and Recall@3, documents ranked by their best passage."""
    count = scored(case, setting)
    raw = np.array((case.raw_int8 if rounded else case.raw)[:count])
    mixed = blend(raw, retrieval(case), setting.share)
    order = np.argsort(-mixed, kind="stable").tolist() + list(range(count, len(case.documents)))
    ranked = list(dict.fromkeys(case.documents[i] for i in order))
    return metrics.ndcg(ranked, case.grades, 10), metrics.recall(ranked, case.grades, 3)


class Clock:
    """CPU time of the real engine, tokenising included; measured once for each (case, count).

    Args:
        kept: whether another question found the same passages before.
    """

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        settings = RerankerSettings(cache_vectors_mb=64 if kept else 0)
        make = app._late_interaction(settings, threading.Event())[0]
        metrics = EncoderMetrics(CollectorRegistry(), cache="scores")
        self._engine = make(partial(app._dispatcher, settings, metrics))
        self._seen: dict[tuple[str, int, int], float] = {}

    async def seconds(self, cases: Sequence[Case], setting: Setting) -> float:
        """Mean over `cases` under `setting`."""
        return float(np.mean([await self._one(case, setting) for case in cases]))

    async def close(self) -> None:
        await self._engine.close()

    async def _one(self, case: Case, setting: Setting) -> float:
        count = scored(case, setting)
        offered = within_gap(retrieval(case), setting.gap)
        if count == 0:
            return 0.0
        key = (case.text, offered, count)
        if key not in self._seen:
            texts = case.texts[:offered]
            if self._kept:
                await self._score("another question", texts, count)
            begun = time.process_time()
            await self._score(case.text, texts, count)
            self._seen[key] = time.process_time() - begun
        return self._seen[key]

    async def _score(self, query: str, texts: Sequence[str], count: int) -> None:
        prepared = await asyncio.to_thread(self._engine.prepare, query, texts)
        await self._engine.score(prepared, count, deadline=Deadline.after(60))


async def curve(sets: dict[str, list[Case]]) -> list[Row]:
    """Quality and CPU time of every setting."""
    rows = []
    clock, keeping = Clock(), Clock(kept=True)
    for name, cases in sets.items():
        sample = cases[:: len(cases) // SAMPLE][:SAMPLE]
        await clock.seconds(sample[:2], ALL_20)  # shapes that the engine has not met
        clock._seen.clear()
        alone = np.mean([quality(case, ALONE) for case in cases], axis=0)
        whole = await clock.seconds(sample, ALL_20)
        for setting in dict.fromkeys([ALONE, *BLENDS, *GAPS]):
            found = np.mean([quality(case, setting) for case in cases], axis=0)
            targets = [">= 0.73"] * 2 if (name, setting) == ("scifact", DEFAULT) else [None] * 2
            for figure, ours, peer, target in zip(
                ("nDCG@10", "Recall@3"), found, alone, targets, strict=True
            ):
                what = f"{NAMES[name]} {figure}, {setting}"
                rows.append(Row(what, "", float(ours), target, float(peer), "retrieval alone"))
            if setting.share == 0.5:
                cost = await clock.seconds(sample, setting)
                what = f"{NAMES[name]} CPU a question, {setting}"
                rows.append(Row(what, "ms", cost * 1e3, None, whole * 1e3, "all 20"))
        again = await keeping.seconds(sample, DEFAULT)
        what = f"{NAMES[name]} CPU a question, {DEFAULT}, passages met before"
        cold = await clock.seconds(sample, DEFAULT)
        rows.append(Row(what, "ms", again * 1e3, None, cold * 1e3, "passages not met before"))
    await clock.close()
    await keeping.close()
    return rows


def chosen(sets: dict[str, list[Case]]) -> Iterator[Row]:
    """Settings worth choosing against the same tokens without a gap, as means over the sets."""
    peer = Setting(1_200)
    for setting in (DEFAULT, CHEAP, BEST):
        both = [
            np.mean([_mean(cases, each) for cases in sets.values()], axis=0)
            for each in (setting, peer)
        ]
        for figure, ours, theirs in zip(("nDCG@10", "Recall@3", "tokens"), *both, strict=True):
            yield Row(f"all sets {figure}, {setting}", "", ours, None, theirs, str(peer))
    exact = [
        np.mean([quality(case, DEFAULT, rounded=False) for case in cases], axis=0)
        for cases in sets.values()
    ]
    for figure, theirs in zip(("nDCG@10", "Recall@3"), np.mean(exact, axis=0), strict=True):
        ours = np.mean([_mean(cases, DEFAULT) for cases in sets.values()], axis=0)
        position = 0 if figure == "nDCG@10" else 1
        what = f"all sets {figure}, token vectors in 8 bits"
        yield Row(what, "", float(ours[position]), None, float(theirs), "as they are")


def _mean(cases: Sequence[Case], setting: Setting) -> np.ndarray:
    def tokens(case: Case) -> int:
        count = scored(case, setting)
        return sum(case.tokens[:count]) + (case.query_tokens if count else 0)

    return np.mean([(*quality(case, setting), tokens(case)) for case in cases], axis=0)


def kept_vectors() -> Iterator[Row]:
    """Measure the cost of a passage whose token vectors are kept, and how often that is so."""
    random = np.random.default_rng(0)
    query = random.standard_normal((17, 384)).astype(np.float32)
    passages = [Rounded.of(random.standard_normal((200, 384))) for _ in range(20)]
    took = []
    for _ in range(50):
        begun = time.perf_counter()
        max_sim(query, passages)
        took.append(time.perf_counter() - begun)
    yield Row("MaxSim with 20 kept passages of 200 tokens, median", "ms", np.median(took) * 1e3)
    folder = DATA / "ragpulse"
    with (folder / "2_passages.jsonl").open() as lines:
        lengths = {row["passage_id"]: min(row["token_length"], 256) for row in _json(lines)}
    with (folder / "0_trace.jsonl").open() as lines:
        asked = [id_ for row in _json(lines) for id_ in row["hash_ids"]["passages_ids"]]
    for megabytes in (16, 32, 64, 128):
        cache: Cache[int] = Cache(megabytes * 1e6, lambda tokens: tokens * VECTOR_BYTES)
        for id_ in asked:
            key = str(id_).encode()
            if cache.get(key) is None:
                cache.put(key, lengths.get(id_, 256))
        share = cache.hits / (cache.hits + cache.misses)
        yield Row(f"RAGPulse passages found in {megabytes} MB of token vectors", "", share)


def _json(lines: Sequence[str]) -> Iterator[dict]:
    return (json.loads(line) for line in lines if line.strip())


def calibration(sets: dict[str, list[Case]]) -> Iterator[Row]:
    """Fit on every second question, each set with the same weight; judge on the others.

    The model's score is the only feature: it depends on the pair alone.
    """
    fitted = [_pairs(cases[::2], ALL_20) for cases in sets.values()]
    weights = np.concatenate([np.full(len(relevant), 1 / len(relevant)) for _, relevant in fitted])
    model = LogisticRegression(C=1e6).fit(
        np.concatenate([features for features, _ in fitted]),
        np.concatenate([relevant for _, relevant in fitted]),
        sample_weight=weights * len(weights) / len(fitted),
    )
    found = Calibration(float(model.intercept_[0]), float(model.coef_[0][0]))
    for name in ("intercept", "raw"):
        yield Row(f"calibration, {name}", "", getattr(found, name))
    for name, cases in sets.items():
        for setting in (ALL_20, DEFAULT):
            features, relevant = _pairs(cases[1::2], setting)
            chances = found.probabilities(features[:, 0])
            where = f"{NAMES[name]}, {setting}"
            yield Row(f"calibration error (ECE), {where}", "", _error(chances, relevant))
            yield Row(f"calibration AUC, {where}", "", roc_auc_score(relevant, chances))
            base = float(relevant.mean() * (1 - relevant.mean()))
            brier = brier_score_loss(relevant, chances)
            yield Row(f"calibration Brier, {where}", "", brier, None, base, "always the mean")


def _pairs(cases: Sequence[Case], setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Raw score, of shape (candidates, 1), and relevance of every candidate scored."""
    features, relevant = [], []
    for case in cases:
        count = scored(case, setting)
        features.append(np.array(case.raw_int8[:count])[:, None])
        relevant += [case.grades.get(document, 0) > 0 for document in case.documents[:count]]
    return np.concatenate(features), np.array(relevant)


def _error(chances: np.ndarray, relevant: np.ndarray) -> float:
    """Mean distance of ten equal bins' mean probability from the share that is relevant."""
    bins = np.minimum((chances * 10).astype(int), 9)
    held = [bins == number for number in np.unique(bins)]
    return float(
        sum(abs(chances[each].mean() - relevant[each].mean()) * each.mean() for each in held)
    )


def main() -> None:
    """Measure and publish."""
    sets = {name: load(name) for name in QUESTIONS}
    rows = asyncio.run(curve(sets))
    publish("reranker_budget", [*chosen(sets), *rows, *kept_vectors(), *calibration(sets)])


if __name__ == "__main__":
    main()
