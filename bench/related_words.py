"""Words added to a query by co-occurrence and by its first hits, over words alone, in memory.

Neither is part of the mesh: what they gain on one set they lose on another.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache, partial
from itertools import islice

import mesh_passages
import numpy as np
from raglan_cli import metrics
from raglan_retriever import lexical
from report import Row
from scipy import sparse

SETS = ("scifact", "cranfield")
_NEIGHBOURS = 3
_LEAST_DICE = 0.2
_LEAST_DOCUMENTS = 3

Query = dict[int, float]


class Words:
    """BM25 over the documents of a set, by the retriever's own analysis."""

    def __init__(self, name: str) -> None:
        path = mesh_passages.DATA / name / "corpus.jsonl"
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        rows = [row for row in rows if row["text"].strip()]
        analysed = [lexical.analyse(f"{row['title']}\n{row['text']}", "en", "en") for row in rows]
        mean = statistics.fmean(each.length for each in analysed)
        vectors = [lexical.document(each, mean) for each in analysed]
        self.ids = [row["_id"] for row in rows]
        self.terms = sorted({term for each in vectors for term in each.indices})
        self.row = {term: number for number, term in enumerate(self.terms)}
        values = [value for each in vectors for value in each.values]
        where = (
            [self.row[term] for each in vectors for term in each.indices],
            [at for at, each in enumerate(vectors) for _ in each.indices],
        )
        self.weights = sparse.csr_matrix((values, where), shape=(len(self.terms), len(rows)))
        self.held = (self.weights > 0).astype(np.float32)
        self.holders = np.diff(self.weights.indptr)
        count = len(rows)
        self.idf = np.log(1 + (count - self.holders + 0.5) / (self.holders + 0.5))
        self.by_document = self.weights.tocsc()

    def scores(self, query: Query) -> np.ndarray:
        """The score of each document."""
        known = [(self.row[term], weight) for term, weight in query.items() if term in self.row]
        found = np.zeros(len(self.ids))
        for row, weight in known:
            found += weight * self.idf[row] * self.weights[row].toarray().ravel()
        return found

    @cache  # noqa: B019 - one object a set
    def neighbours(self, term: int) -> list[tuple[int, float]]:
        """The terms that most share their documents with `term`, with Dice's coefficient."""
        row = self.row.get(term)
        if row is None or self.holders[row] < _LEAST_DOCUMENTS:
            return []
        together = (self.held @ self.held[row].T).toarray().ravel()
        dice = 2 * together / (self.holders + self.holders[row])
        dice[self.holders < _LEAST_DOCUMENTS] = 0
        dice[row] = 0
        best = np.argsort(-dice)[:_NEIGHBOURS]
        return [(self.terms[at], float(dice[at])) for at in best if dice[at] > _LEAST_DICE]

    def with_neighbours(self, query: Query, weight: float) -> Query:
        """The query and the words that co-occur with its words."""
        more: Query = {}
        for term in query:
            for other, dice in self.neighbours(term):
                more[other] = max(more.get(other, 0), weight * dice)
        return more | query

    def with_feedback(self, query: Query, documents: int, words: int, weight: float) -> Query:
        """The query and the words that stand out in its first documents."""
        scores = self.scores(query)
        weights: Counter[int] = Counter()
        for at in np.argsort(-scores, kind="stable")[:documents]:
            column = self.by_document[:, at]
            share = scores[at] / max(1e-9, column.data.sum())
            for row, value in zip(column.indices, column.data, strict=True):
                weights[self.terms[row]] += share * value * self.idf[row]
        fresh = islice((each for each in weights.most_common() if each[0] not in query), words)
        best = list(fresh)
        return {term: weight * value / best[0][1] for term, value in best} | query


def rows() -> list[Row]:
    """nDCG@10 of each set, without and with further words."""
    found: list[Row] = []
    for name in SETS:
        words = Words(name)
        neighbours, feedback = words.with_neighbours, words.with_feedback
        forms: dict[str, Callable[[Query], Query]] = {
            "words of the query": dict,
            "and words that co-occur, weight .1": partial(neighbours, weight=0.1),
            "and words that co-occur, weight .3": partial(neighbours, weight=0.3),
            "and 10 words of the first 3 hits, .1": partial(
                feedback, documents=3, words=10, weight=0.1
            ),
            "and 10 words of the first 5 hits, .2": partial(
                feedback, documents=5, words=10, weight=0.2
            ),
        }
        for label, form in forms.items():
            ndcg, first = _figures(words, name, form)
            found.append(Row(f"{name}, words alone, {label}, nDCG@10", "", ndcg))
            found.append(Row(f"{name}, words alone, {label}, Recall@1", "", first))
    return found


def _figures(words: Words, name: str, form: Callable[[Query], Query]) -> tuple[float, float]:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    lines = (mesh_passages.DATA / name / "qrels" / "test.tsv").read_text().splitlines()[1:]
    for query, document, score in (line.split("\t") for line in lines):
        if int(score) > 0:
            judged[query][document] = int(score)
    ndcg, first = [], []
    for row in mesh_passages.questions(name):
        if row["_id"] not in judged:
            continue
        asked = lexical.query(row["text"], ["en"], "en")
        query = form(dict(zip(asked.indices, asked.values, strict=True)))
        order = np.argsort(-words.scores(query), kind="stable")[:10]
        ranked = [words.ids[at] for at in order]
        ndcg.append(metrics.ndcg(ranked, judged[row["_id"]], 10))
        first.append(metrics.recall(ranked, judged[row["_id"]], 1))
    return statistics.fmean(ndcg), statistics.fmean(first)
